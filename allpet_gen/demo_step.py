"""What the generator adds to ``allpet demo``: a sinogram of every class, its image, its counts and its consistency."""

import time
from pathlib import Path

from allpet_gen._torch import require_torch
from allpet_physics.errors import InputError

PICTURE = "generated.png"
MODEL, STEPS, SEED = "small", 40, 0


def demo_step(folder: Path, progress) -> dict:
    """Draw a sinogram of every class with the model that comes with the package, and picture them.

    Found by ``allpet demo`` through the entry point group ``allpet.demo_steps``; this module needs no torch to be
    imported.

    Parameters
    ----------
    folder : Path
        Where `PICTURE` is written.
    progress : callable
        As `allpet_physics._command_line.Progress`.

    Returns
    -------
    dict
        ``lines`` to print, and where sinograms were drawn a ``record`` of them.
    """
    try:
        require_torch()
    except InputError as error:
        return {"lines": [f"generated sinograms: none; {error}"]}
    from allpet_gen._pretrained import shipped_models

    if MODEL not in shipped_models():
        return {"lines": [f'generated sinograms: none; this copy of allpet comes without the trained model "{MODEL}"; '
                          f"allpet train --config {MODEL} makes one for allpet generate --model."]}
    progress.stage("loading the generator")
    from allpet_gen.pipelines import SinogramGenerationPipeline

    return picture_of_classes(SinogramGenerationPipeline.from_pretrained(MODEL), folder, progress)


def picture_of_classes(pipe, folder: Path, progress, steps: int = STEPS) -> dict:
    """Draw one sinogram of every region and tracer from a pipeline; see `demo_step`."""
    from allpet_gen.model_card import consistency_lines, describe_sinograms, measured_like
    from allpet_gen.pictures import Panel, contact_sheet
    from allpet_gen.prompts import VOCABULARY, Prompt

    started = time.perf_counter()
    prompts = [Prompt(tracer, region) for region in VOCABULARY["region"] for tracer in VOCABULARY["tracer"]]
    drawn = pipe(prompts, seed=SEED, steps=steps,
                 progress=lambda rounds: progress(rounds, "generating sinograms", unit="step"))
    progress.stage("drawing")
    panels, classes, lines = [], {}, []
    for prompt, sinogram, image in zip(map(str, prompts), drawn.sinograms, drawn.images, strict=True):
        described, measured = describe_sinograms(sinogram[None], drawn.geometry), measured_like(pipe.card, prompt)
        said = consistency_lines(described, measured)
        classes[prompt] = {"counts": int(sinogram.sum()), "moments": described["moments"]["median"],
                           **({"measured": measured} if measured else {})}
        panels.append(Panel(sinogram, image, prompt, tuple(said), prompt))
        lines.append(f"{prompt:<24}{', '.join(said)}")
    contact_sheet(Path(folder) / PICTURE, panels, drawn.geometry, columns=len(VOCABULARY["tracer"]), beside=True,
                  title="Generated count sinograms and their images",
                  subtitle=_subtitle(drawn.geometry, steps, "measured" in pipe.card))
    seconds = round(time.perf_counter() - started, 3)
    record = {"classes": classes, "seed": SEED, "steps": steps, "sampler": "ddim", "geometry": drawn.geometry.to_dict(),
              "seconds": seconds}
    return {"lines": [f"generated sinograms, one of each class, in {seconds:.1f} s:", *lines], "record": record}


def _subtitle(geometry, steps: int, compared: bool) -> str:
    spread = " Held out: 5 % to 95 % of simulated patients not trained on." if compared else ""
    return (f"Drawn by a latent diffusion model from the words above each pair ({steps} steps), with Poisson noise; "
            f"{geometry.n_angles} angles × {geometry.n_bins} bins of {geometry.bin_mm:.3g} mm. Images: OSEM 2 × 16, "
            "filtered, not corrected.\n"
            "Helgason-Ludwig: residual of the moments of orders 0 to 3. Attenuation, scatter and "
            f"randoms keep it from zero in every sinogram of counts.{spread}")
