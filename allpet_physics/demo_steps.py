"""What other packages add to ``allpet demo``: steps found through the entry point group ``allpet.demo_steps``.

A step called NAME is a function ``step(folder, progress)`` that may write ``NAME.png`` into the folder and returns
``{"lines": [...], "record": {...}}``: lines to print, and what goes into the record (both may be absent).
"""

from pathlib import Path

GROUP = "allpet.demo_steps"


def find_steps() -> list:
    """Return the entry points of all steps, by name."""
    from importlib.metadata import entry_points

    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


def picture_name(point) -> str:
    """Return the name of the picture that a step may write."""
    return f"{point.name}.png"


def run_step(point, folder: Path, progress) -> dict:
    """Run a step and return what it found; one that fails is told in a line and leaves no picture."""
    try:
        found = dict(point.load()(folder, progress))
        return {"lines": list(found.get("lines", ())), "record": found.get("record")}
    except Exception as error:  # whatever a foreign package raises must not take the demonstration with it
        (folder / picture_name(point)).unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:300]
        return {"lines": [f"{point.name}: not made, because {point.value} failed ({type(error).__name__}: {reason})."],
                "record": {"failed": type(error).__name__}}
