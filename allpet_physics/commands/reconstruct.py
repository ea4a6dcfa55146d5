"""``allpet reconstruct``: images from sinograms by FBP, MLEM or OSEM."""

import math
from pathlib import Path

import click

from allpet_physics import _command_line as line
from allpet_physics.commands._options import arc_radians

_path = line.FilePath()
_FBP = ("filter", "cutoff")
_EM = ("iterations", "model", "backend", "multiplicative", "additive", "clip_negative")
_DEFAULTS = {"filter": "ramp", "cutoff": 1.0, "iterations": 2, "subsets": 16, "model": "strip", "backend": "numba"}


@line.command("reconstruct", short_help="Images from sinograms: FBP, MLEM, OSEM.", example="""
allpet reconstruct counts.npz --method osem --iterations 2 --subsets 16 --out image.nii.gz
allpet reconstruct sinogram.hs --method fbp --filter hann --out image.nii.gz""")
@click.argument("sinogram", type=_path)
@click.option("--out", required=True, type=_path, metavar="FILE", help="Image: .nii.gz or .nii.")
@click.option("--method", type=click.Choice(["fbp", "mlem", "osem"]), default="fbp", show_default=True)
@click.option("--array", metavar="NAME", default="sinogram", show_default=True, help="Which array of an .npz.")
@click.option("--filter", type=click.Choice(["ramp", "shepp-logan", "cosine", "hamming", "hann"]),
              help="fbp: window [default: ramp, none].")
@click.option("--cutoff", type=float, help="fbp: cutoff as a fraction of the Nyquist frequency [default: 1].")
@click.option("--iterations", type=int, metavar="N", help="mlem, osem [default: 2 for osem, 32 for mlem].")
@click.option("--subsets", type=int, metavar="N", help="osem [default: 16].")
@click.option("--model", type=click.Choice(["strip", "joseph"]), help="mlem, osem: projector [default: strip].")
@click.option("--backend", type=click.Choice(["numba", "astra"]), help="mlem, osem [default: numba].")
@click.option("--multiplicative", type=_path, metavar="FILE", help="mlem, osem: sinogram of factors (attenuation, "
                                                                   "normalisation).")
@click.option("--additive", type=_path, metavar="FILE", help="mlem, osem: sinogram of background counts.")
@click.option("--clip-negative", is_flag=True, default=None,
              help="mlem, osem: set negative data (corrected by subtraction) to zero; biases the image upwards.")
@click.option("--bin-mm", type=float, metavar="MM",
              help="Width of a bin, where the file does not say it; a file that does must agree.")
@click.option("--arc", type=click.Choice(["pi", "2pi"]),
              help="Arc, where the file does not say it; a file that does must agree.")
@click.option("--image-size", type=int, metavar="N", help="Reconstruct N x N pixels instead of the file's grid.")
@click.option("--pixel-mm", type=float, metavar="MM", help="Reconstruct pixels of this side.")
@line.overwrite_option
@line.json_option
@line.quiet_option
@click.pass_context
def command(ctx, sinogram, out, method, array, bin_mm, arc, image_size, pixel_mm, overwrite, as_json, quiet,
            **settings):
    """Reconstruct SINOGRAM (.npz, .nii.gz or Interfile .hs) slice by slice into a NIfTI image.

    The image lies where the sinogram's own image lay, if the file says it; its unit is that of the projected image.
    MLEM and OSEM need counts or other non-negative data. An Interfile that allpet did not write says neither unit nor
    image grid: as many pixels as bins, of the bins' size, unless --image-size and --pixel-mm are given.

    An image that is zero everywhere is an empty result: nothing is written, and the exit code is 5.
    """
    from allpet_physics._files import refuse_replacing, staged
    from allpet_physics._memory import refuse_too_large
    from allpet_physics.errors import InputError
    from allpet_physics.io.nifti import is_nifti, write_nifti
    from allpet_physics.io.sinogram_files import read_sinogram
    from allpet_physics.io.volume import Volume

    if not is_nifti(out):
        raise InputError(f"--out must end in .nii.gz or .nii, but was {out.name!r}.")
    allowed = _FBP if method == "fbp" else (*_EM, "subsets") if method == "osem" else _EM
    wrong = [f"--{name.replace('_', '-')}" for name, value in settings.items()
             if value is not None and name not in allowed]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)} cannot be used with --method {method}.")
    if method == "mlem" and settings["iterations"] is None:
        settings["iterations"] = 32
    settings = {name: _DEFAULTS.get(name) if value is None else value for name, value in settings.items()}
    progress = line.Progress(quiet)
    inputs = {"SINOGRAM": sinogram, "--multiplicative": settings["multiplicative"], "--additive": settings["additive"]}
    data_files = {f"the data file of {what}": path.with_suffix(".s") for what, path in inputs.items()
                  if path is not None and path.suffix.lower() == ".hs"}
    refuse_replacing(out.parent, [out.name], inputs | data_files)
    with staged(out.parent, [out.name], overwrite=overwrite) as folder, line.collected_warnings() as noticed:
        progress.stage("reading the sinogram")
        size = None if image_size is None else (image_size, image_size)
        stack = read_sinogram(sinogram, array=array, bin_mm=bin_mm, arc=arc_radians(arc), image_shape=size,
                              pixel_mm=pixel_mm)
        affine = stack.image_affine()
        refuse_too_large(f"images of {len(stack.data)} x {' x '.join(map(str, stack.geometry.image_shape))} pixels",
                         len(stack.data) * math.prod(stack.geometry.image_shape), 8,
                         "choose a smaller --image-size, or larger pixels with --pixel-mm")
        if not stack.data.any():
            raise line.EmptyResult(f"SINOGRAM is zero everywhere ({sinogram.name}), and so would be its image; nothing "
                                   "was written.")
        if method != "fbp":
            stack = _without_negatives(stack, settings["clip_negative"])
        images = _fbp(stack, settings, progress) if method == "fbp" else _em(stack, settings, method, progress)
        if not images.any():
            raise line.EmptyResult("the image is zero everywhere: no line that holds counts meets it with a "
                                   "sensitivity above zero; check the sinogram, --multiplicative and the image's size; "
                                   "nothing was written.")
        if stack.scale != 1:
            images /= stack.scale
        progress.stage("writing")
        write_nifti(folder / out.name, Volume(images.transpose(2, 1, 0), affine, stack.unit_of_images))
    notes = list(dict.fromkeys([*stack.warnings, *noticed]))
    line.warn(notes)
    used = {name: str(settings[name]) if isinstance(settings[name], Path) else settings[name] for name in allowed}
    report = {"allpet": "reconstruct", "result": "done", "file": str(out), "method": method, "settings": used,
              "geometry": stack.geometry.to_dict(), "n_slices": len(images), "unit": stack.unit_of_images,
              "minimum": float(images.min()), "mean": float(images.mean(dtype="float64")),
              "maximum": float(images.max()), "warnings": notes, "exit_code": 0}
    line.finish(report, [f"image     {len(images)} slices of {images.shape[1]} x {images.shape[2]} pixels of "
                         f"{stack.geometry.pixel_mm:.4g} mm, {report['unit']}, {report['minimum']:.4g} to "
                         f"{report['maximum']:.4g}", f"written   {out}"], as_json, quiet)


def _without_negatives(stack, clip: bool):
    import dataclasses

    import numpy as np

    from allpet_physics.errors import InputError

    below = np.count_nonzero(stack.data < 0)
    if not below:
        return stack
    if not clip:
        raise InputError(f"SINOGRAM must not be negative for MLEM and OSEM, but {below} of its {stack.data.size} "
                         "values are (corrected by subtraction?); use --method fbp, the uncorrected counts with "
                         "--additive, or --clip-negative.")
    return dataclasses.replace(stack, data=np.maximum(stack.data, 0), warnings=(
        *stack.warnings, f"{below} negative values of {stack.data.size} were set to zero."))


def _parts(stack) -> list[slice]:
    return [slice(i, i + 8) for i in range(0, len(stack.data), 8)]


def _fbp(stack, settings, progress):
    import numpy as np

    from allpet_physics.fbp import fbp

    return np.concatenate([fbp(stack.data[part], stack.geometry, settings["filter"], cutoff=settings["cutoff"])
                           for part in progress(_parts(stack), "filtered back projection")])


def _em(stack, settings, method, progress):
    import numpy as np

    from allpet_physics.acquisition import AcquisitionModel
    from allpet_physics.emission import osem_iterates
    from allpet_physics.radon import RadonOperator

    operator = RadonOperator(stack.geometry, model=settings["model"], backend=settings["backend"])
    factors = {name: _factors(settings[name], name, stack) for name in ("multiplicative", "additive")}
    n_subsets = settings["subsets"] if method == "osem" else 1
    parts, images = _parts(stack), []

    def updates():
        for part in parts:
            model = AcquisitionModel(operator, **{name: None if f is None else f[part] for name, f in factors.items()})
            images.append(None)
            for _, _, latest in osem_iterates(model, stack.data[part], settings["iterations"], n_subsets):
                images[-1] = latest
                yield

    total = len(parts) * settings["iterations"] * n_subsets
    for _ in progress(updates(), method.upper(), total=total, unit="update"):
        pass
    return np.concatenate(images)


def _factors(path, name: str, stack):
    from allpet_physics.errors import GeometryError
    from allpet_physics.io.sinogram_files import read_sinogram

    if path is None:
        return None
    try:
        data = read_sinogram(path, bin_mm=stack.geometry.bin_mm, arc=stack.geometry.arc).data
    except GeometryError as error:
        raise GeometryError(f"--{name} must have the geometry of SINOGRAM: {error}") from None
    if data.shape != stack.data.shape:
        raise GeometryError(f"--{name} must have the sinogram's shape {stack.data.shape}, but was {data.shape}.")
    if name == "multiplicative" and not data.any():
        raise line.EmptyResult(f"--multiplicative is zero everywhere ({path.name}): no line would be seen, and "
                               "no image made; nothing was written.")
    return data
