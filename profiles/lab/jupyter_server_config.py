"""How `make lab` saves notebooks: without outputs, so that what is in git stays as it is to be, whoever saves what.

Outputs stay on the screen; in the file they would be a difference at every run, and pictures of data sets that must not be
passed on. Executed copies are in results/<study>/notebooks/, and running again takes seconds, for finished units are found.
"""


def strip(model, **_):
    """Take outputs, counts and times out of a notebook that is about to be saved."""
    if model["type"] != "notebook":
        return
    notebook = model["content"]
    notebook["metadata"] = {name: notebook["metadata"][name] for name in ("kernelspec",) if name in notebook["metadata"]}
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        cell["metadata"] = {name: cell["metadata"][name] for name in ("tags",) if name in cell["metadata"]}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


c.FileContentsManager.pre_save_hook = strip  # noqa: F821, Jupyter gives c
