"""Every figure of results, one function each: plain data in, a matplotlib Figure out."""

from reidlib.figures.accuracy import ablation_bars, accuracy_bars, cmc_curves, cross_domain_heatmap, plateau
from reidlib.figures.beside import side_by_side
from reidlib.figures.cost import efficiency_bars, pareto
from reidlib.figures.insight import constant_weights, dataset_statistics, embedding_map, gate_weights, training_curves
from reidlib.figures.overview import method_overview
from reidlib.figures.pictures import captioned_sheet, paired_lists, ranked_lists, sample_sheet, search_lists
from reidlib.figures.style import save, show, write
