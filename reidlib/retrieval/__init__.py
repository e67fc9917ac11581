"""Exact retrieval: mAP, CMC and mINP without a Q x G matrix, and k-reciprocal re-ranking."""

from reidlib.retrieval.embeddings import EmbeddingSet
from reidlib.retrieval.evaluation import Evaluation, evaluate, evaluate_distances
from reidlib.retrieval.reranking import rerank
