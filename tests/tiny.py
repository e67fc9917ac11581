"""The smallest study that has everything: two experts, all gates, a router, all teachers, every kind of variant."""

import copy

import yaml

RECIPE = {"epochs": 1, "p": 4, "k": 2, "lr": 0.001, "augmentation": {"pad": 2}}
BUILTIN = {"train_ids": 8, "test_ids": 4, "cameras": 2, "images": 2}
CLIP = {
    "embed_dim": 16,
    "vision": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text": {"layers": 1, "width": 16, "heads": 2},
}
ALIGN = {
    "vision": {"width_coefficient": 0.1, "depth_coefficient": 0.1},
    "text": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
}
TREE = {
    "title": "tiny",
    "seeds": [0],
    "device": "cpu",
    "datasets": {
        "vehicles": {"layout": "veri776", "size": [32, 32], "builtin": BUILTIN | {"domain": "vehicles"}},
        "people": {"layout": "market1501", "size": [32, 32], "builtin": BUILTIN | {"domain": "people"}},
    },
    "experts": {
        "clip": {"encoder": {"name": "open_clip:mini", "size": [32, 32], "miniature": CLIP}, "recipe": RECIPE},
        "align": {"encoder": {"name": "align:mini", "size": [32, 32], "miniature": ALIGN}, "recipe": RECIPE},
    },
    "moe": {
        "gates": ["soft", "top1", "uniform", "concat", "router"],
        "width": 48,
        "recipe": RECIPE,
        "router": {"encoder": {"name": "timm:test_byobnet"}, "recipe": RECIPE},
    },
    "student": {"encoder": {"name": "timm:test_efficientnet"}, "recipe": RECIPE},
    "distillation": {"teachers": ["clip", "align", "uniform", "moe"]},
    "ablations": {
        "datasets": ["vehicles"],
        "terms": ["logit", "embedding+relational"],
        "temperatures": [1],
        "online": True,
        "epochs": [2],
        "sizes": {"vit": {"name": "timm:test_vit", "size": [160, 160]}},
    },
    "mixed": True,
    "pretraining": {"pictures": 16, "epochs": 1, "batch": 8},
    "profiling": {"runs": 2, "batch": 2},
}


def write(root, name="tiny", changes=(), **top):
    """root/params/<name>.yaml: TREE with other values, by dotted keys in `changes`; None takes a key away."""
    tree = copy.deepcopy(TREE | top)
    for where, value in dict(changes).items():
        *path, last = where.split(".")
        node = tree
        for key in path:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
    file = root / "params" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def keys(file, *overrides, **options):
    """The key of each unit of a study, by its label."""
    from reidlib.study import open_study

    return {label: unit.key for label, unit in open_study(file, overrides, **options).plan.units().items()}


def changed(before, after):
    """The labels of units that have other keys."""
    assert before.keys() == after.keys()
    return {label for label in before if before[label] != after[label]}
