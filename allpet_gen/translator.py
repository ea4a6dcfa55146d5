r"""The network of the bridges and of the baselines: from a sinogram, and what was said of it, to one or two others."""

from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch.nn import functional

from allpet_gen.count_scaling import CountScaling
from allpet_gen.data import most_turn
from allpet_gen.denoiser import SinogramDenoiser
from allpet_gen.prompts import VOCABULARY
from allpet_gen.tasks import TASKS, find_task
from allpet_physics._arrays import as_positive_float, as_positive_int
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry

#: Sinograms that a network gives: as many as the task with most targets.
SLOTS = max(task.n_targets for task in TASKS.values())
_GOLDEN = (5**0.5 - 1) / 2


class SinogramTranslator(ModelMixin, ConfigMixin):
    r"""A conditional U-Net between sinograms in the √-scale, with nothing lost on the way in and out.

    Counts n become

    .. math:: z = \Big(2\sqrt{g\,n/c_k} - 1 - m\Big)/d, \tag{X1}

    with one scale c for the sources of all tasks and one c_k for the targets of each task k, the gain g of a lowered
    dose (its factor), and one mean m and deviation d for all; squares of `patch` × `patch` bins become channels
    (Shi et al. 2016, arXiv 1609.05158), so that no layer works at full size. Unlike the generator's latent, which keeps
    what is typical, this one keeps every count: a translation must not lose a lesion to a decoder.

    Targets have two slots; a task of one target leaves the second at z = 0.

    Parameters
    ----------
    geometry : dict
        Of `ParallelGeometry.to_dict`; angles and bins must be multiples of patch · 2^(levels − 1).
    count_scale : float
        c of the sources.
    target_scales : dict of float
        c_k by name of the tasks that the network is made for.
    center, deviation : float
        m and d.
    patch : int
    starts : dict of list, optional
        By task, rows (ℓ, a, b) with ℓ of eq. (T1): slope and offset of eq. (X2); a task without them has 1 and 0.
    rotation_deg : float
    mirrored : bool
        Up to which angle patients were turned in training, and whether they were mirrored: views that it knows.
    **others
        Of `SinogramDenoiser`.

    Attributes
    ----------
    geometry : ParallelGeometry
    tasks : tuple of str
    latent_shape : tuple of int
        (SLOTS·patch², angles/patch, bins/patch) of z.

    Raises
    ------
    InputError
        Unknown tasks or none, scales that are not positive, widths that do not fit.
    GeometryError
        Angles or bins that are no multiples.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, geometry: dict, count_scale: float, target_scales: dict, center: float = 0.0,
                 deviation: float = 1.0, patch: int = 4, block_out_channels=(64, 128, 160),
                 attention_levels=(False, True, True), layers_per_block: int = 1, token_dim: int = 128,
                 attention_head_dim: int = 8, norm_num_groups: int = 16, starts: dict | None = None,
                 rotation_deg: float = 0.0, mirrored: bool = False):
        super().__init__()
        self.geometry = ParallelGeometry(**geometry)
        self.tasks = refuse_unknown_tasks(target_scales)  # in their own order: a saved configuration is sorted
        self.scaling = CountScaling(count_scale)
        self._targets = {name: CountScaling(value).scale for name, value in target_scales.items()}
        as_positive_float("deviation", deviation)
        self._starts = {VOCABULARY["task"].index(find_task(name).name) + 1: sorted(map(tuple, rows))
                        for name, rows in (starts or {}).items()}
        factor = as_positive_int("patch", patch) * 2 ** (len(block_out_channels) - 1)
        if any(n % factor for n in self.geometry.sinogram_shape):
            raise GeometryError(f"geometry must have angles and bins that are multiples of {factor}, but had "
                                f"{self.geometry.n_angles} x {self.geometry.n_bins}; resample the sinograms.")
        rows, columns = (n // patch for n in self.geometry.sinogram_shape)
        self.latent_shape = (SLOTS * patch**2, rows, columns)
        self.denoiser = SinogramDenoiser(
            self.latent_shape, self.geometry.arc, tuple(block_out_channels), tuple(attention_levels),
            layers_per_block, token_dim, attention_head_dim, norm_num_groups, condition_channels=patch**2,
            conditions="task", patch=patch)

    def encode_source(self, counts: torch.Tensor, gain) -> torch.Tensor:
        """Return z of source counts (batch, angle, bin), shape (batch, patch², rows, columns).

        Parameters
        ----------
        gain : tensor, shape (batch,), or float
            1, or the factor of a lowered dose.
        """
        gain = torch.as_tensor(gain, dtype=torch.float32, device=counts.device).reshape(-1, 1, 1)
        return self._to_channels(self._standard(self.scaling.encode(counts * gain))[:, None])

    def start(self, source: torch.Tensor, used: torch.Tensor, tokens: torch.Tensor,
              numbers: torch.Tensor) -> torch.Tensor:
        r"""Return where a translation begins, in every slot that is used; shape of `encode_target`.

        .. math:: z_T = a\, z_x + b, \tag{X2}

        with the encoded source :math:`z_x` and slope and offset of the sample's task, and of its dose, between whose
        rows they are interpolated in ℓ: counts without attenuation are far above those with it, and a hundredth of a
        dose is mostly noise, of which a small slope leaves little.

        Parameters
        ----------
        source : tensor, shape (batch, patch², rows, columns)
            Of `encode_source`.
        used : tensor, shape (batch, SLOTS)
        tokens, numbers : tensor, shape (batch, 4)
            Of `allpet_gen.tasks`.
        """
        slope, offset = self.slope_and_offset(tokens, numbers)
        return self.masked((slope * source + offset).repeat(1, SLOTS, 1, 1), used)

    def slope_and_offset(self, tokens: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a and b of eq. (X2) of each sample, shape (batch, 1, 1, 1)."""
        task, level = tokens[:, 2], numbers[:, 3].float()
        found = torch.stack([torch.ones_like(level), torch.zeros_like(level)])
        for number, rows in self._starts.items():
            value = torch.tensor(rows[0][1:], device=level.device)[:, None] + torch.zeros_like(found)
            for (low, *left), (high, *right) in pairwise(rows):
                rise = torch.tensor(right, device=level.device) - torch.tensor(left, device=level.device)
                value = value + rise[:, None] * ((level - low) / (high - low)).clamp(0, 1)
            found = torch.where(task == number, value, found)
        return found[0][:, None, None, None], found[1][:, None, None, None]

    def encode_target(self, counts: torch.Tensor, scales: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Return z of expected counts (batch, SLOTS, angle, bin), with c_k (batch,) and the slots used."""
        x = 2 * (counts / scales.reshape(-1, 1, 1, 1)).sqrt() - 1
        return self.masked(self._to_channels(self._standard(x)), used)

    def decode(self, z: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Return expected counts (batch, SLOTS, angle, bin) of z, the inverse of `encode_target`; never below 0."""
        x = functional.pixel_shuffle(z.float(), self.config.patch) * self.config.deviation + self.config.center
        return scales.reshape(-1, 1, 1, 1) * ((x + 1).clamp(min=0) / 2) ** 2

    def masked(self, z: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Return z with zeros in the slots that are not used; `used` is (batch, SLOTS), 0 or 1."""
        return z * used.to(z.dtype).repeat_interleave(self.config.patch**2, dim=1)[..., None, None]

    def view(self, number: int) -> tuple[int, bool]:
        """Return by how many angles view `number` is turned and whether it is mirrored; view 0 is as it is.

        Turns are spread evenly over those of the training, however many there are (multiples of the golden ratio),
        and every other view is mirrored; a network that was trained upright has one view.
        """
        most = most_turn(self.config.rotation_deg, self.geometry)
        turn = round(most * (2 * ((0.5 + number * _GOLDEN) % 1) - 1)) if number else 0
        return turn, bool(self.config.mirrored and number % 2)

    def target_scale(self, task: str) -> float:
        """Return c_k of a task.

        Raises
        ------
        InputError
            A task that this network was not trained for.
        """
        if find_task(task).name not in self._targets:
            raise InputError(f"task must be one that the model was trained for, {', '.join(self._targets)}, but was "
                             f"{task!r}; train one with allpet train --task {task}.")
        return self._targets[task]

    def forward(self, z: torch.Tensor, t: torch.Tensor, source: torch.Tensor, tokens: torch.Tensor,
                numbers: torch.Tensor | None = None, attention: torch.Tensor | None = None,
                gate_strength: float = 0.0, gate: str = "residual") -> torch.Tensor:
        """Return the network's output for z, of the shape of z.

        Parameters
        ----------
        z : tensor, shape (batch, *latent_shape)
        t : tensor, shape (batch,) or ()
            What is said of the time: `BridgeScheduler.noise_condition`.
        source : tensor, shape (batch, patch², rows, columns)
            Of `encode_source`.
        tokens, numbers : tensor, shape (batch, 4)
            Of `allpet_gen.tasks`; the numbers are zero if not given.
        attention, gate_strength, gate
            Of `SinogramDenoiser`.
        """
        return self.denoiser(torch.cat([z, source.to(z.dtype)], dim=1), t, tokens, numbers, attention, gate_strength,
                             gate)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func=None) -> None:
        """Compute features again in ``backward`` instead of keeping them."""
        self.denoiser.enable_gradient_checkpointing(gradient_checkpointing_func)

    def _standard(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.config.center) / self.config.deviation

    def _to_channels(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pixel_unshuffle(x, self.config.patch)


def slots_used(task: str) -> list[float]:
    """Return 1 for each slot that a task fills, 0 for the rest."""
    n = find_task(task).n_targets
    return [1.0] * n + [0.0] * (SLOTS - n)


def refuse_unknown_tasks(names) -> tuple[str, ...]:
    """Return names of tasks (one alone as well), each once, in the order of `TASKS`.

    Raises
    ------
    InputError
        None at all, or an unknown one.
    """
    chosen = {find_task(name).name for name in ([names] if isinstance(names, str) else names)}
    if not chosen:
        raise InputError(f"tasks must name at least one of {', '.join(TASKS)}, but were none.")
    return tuple(name for name in TASKS if name in chosen)
