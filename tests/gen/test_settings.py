"""Settings: sizes, files of one's own, changes, and what is refused by name."""

import pytest
import torch

from allpet_gen.settings import SIZES, differences, parse_change, read_settings
from allpet_gen.training_settings import TrainingSettings
from allpet_physics.errors import InputError


def sections(settings):
    return {name: sorted(value) if isinstance(value, dict) else None for name, value in settings.items()}


def test_every_size_has_the_same_settings_and_grows():
    found = [read_settings(size) for size in SIZES]
    assert all(sections(one) == sections(found[0]) for one in found)
    sizes = [one["cohort"]["size"] for one in found]
    assert sizes == sorted(sizes) == [32, 128, 256, 512]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_fits_itself(size):
    settings = read_settings(size)
    network = settings["autoencoder"]
    factor = network["patch"] * 2 ** (len(network["block_out_channels"]) - 1)
    latent = settings["cohort"]["size"] / factor
    assert latent % 2 ** (len(settings["denoiser"]["block_out_channels"]) - 1) == 0
    for part in ("autoencoder", "denoiser"):
        groups = settings[part]["norm_num_groups"]
        assert all(width % groups == 0 for width in settings[part]["block_out_channels"])
    assert settings["masks"]["block_px"][1] * settings["masks"]["n_blocks"][1] < settings["cohort"]["size"] * 1.01


@pytest.mark.parametrize(("has", "precision"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"),
                                                ({"avx512_bf16": False, "avx2": True}, "no"), ({}, "no"),
                                                (None, "no")])
def test_precision_is_settled_for_the_processor(has, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if has is None:  # a torch that does not say
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert TrainingSettings(1, 1, 1.0, precision="auto").precision == precision
    for family in ("", "translation-"):
        assert read_settings("small", family=family)["training"]["precision"] == precision
        assert read_settings("small", {"training.precision": "bf16"}, family)["training"]["precision"] == "bf16"
        assert read_settings("small", {}, family, "fp16")["training"]["precision"] == "fp16"  # that of what goes on


@pytest.mark.parametrize(("emulated", "precision"), [(False, "bf16"), (True, "no")])
def test_precision_is_settled_for_the_gpu(emulated, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not emulated)
    assert TrainingSettings(1, 1, 1.0, precision="auto").precision == precision


def test_a_file_of_ones_own_changes_what_it_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nseed = 5\n[training.denoiser]\nsteps = 7\nlearning_rate = 1\n"
                    "[masks]\nblock_px = [2, 9]\n")
    settings, small = read_settings(path), read_settings("small")
    assert set(differences(small, settings)) == {"training.seed", "training.denoiser.steps",
                                                 "training.denoiser.learning_rate", "masks.block_px"}
    assert settings["training"]["denoiser"]["learning_rate"] == 1.0


def test_changes_come_last_and_touch_nothing_else():
    changed = read_settings("tiny", {"training.denoiser.steps": 7, "masks.n_blocks": (1, 2)})
    assert differences(read_settings("tiny"), changed) == {"training.denoiser.steps": (150, 7),
                                                           "masks.n_blocks": ([1, 3], [1, 2])}
    assert read_settings("tiny")["training"]["denoiser"]["steps"] == 150


@pytest.mark.parametrize(("text", "value"), [("a.b=3", 3), ("a.b = 1e-4", 1e-4), ("a.b=true", True),
                                             ("a.b=[1, 2]", [1, 2]), ("a.b=bf16", "bf16"), ('a.b="no"', "no"),
                                             ("a.b=x=y", "x=y")])
def test_changes_are_read_from_text(text, value):
    assert parse_change(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["seed", "=3", ""])
def test_a_change_without_name_or_sign_is_refused(text):
    with pytest.raises(InputError, match="name=value"):
        parse_change(text)


@pytest.mark.parametrize(("name", "value"), [
    ("training.sed", 1), ("trainng.seed", 1), ("training", 3), ("training.seed.deep", 1), ("training.seed", 1.5),
    ("training.seed", "one"), ("training.precision", 1), ("data.composite", 1), ("masks.block_px", [1, "2"]),
    ("masks.block_px", []), ("masks.block_px", [9, 2]), ("masks.n_blocks", [0, 2]), ("augmentation.mirror", 1.5),
    ("augmentation.rotation_deg", -1.0), ("augmentation.views", 0), ("data.per_class", 0), ("diffusion.steps", 0),
    ("diffusion.beta_end", 1.5), ("diffusion.beta_schedule", "exotic"), ("diffusion.null_prompt", float("nan")),
    ("autoencoder_loss.kl", -1.0), ("denoiser.attention_levels", [True])])
def test_what_cannot_be_is_named(name, value):
    with pytest.raises(InputError, match=name.split(".")[0]) as raised:
        read_settings("small", {name: value})
    assert str(raised.value).count(name) <= 1


@pytest.mark.parametrize(("name", "value", "sentence"), [
    ("training.denoiser.batch", 0, "training.denoiser.batch must be 1 or more, but was 0."),
    ("training.precision", "fp8", "training.precision must be one of auto, no, bf16, fp16, but was 'fp8'."),
    ("training.seed", 1.5, "training.seed must be like 0, but was 1.5."),
    ("autoencoder.norm_num_groups", 7,
     "autoencoder.block_out_channels must be positive multiples of autoencoder.norm_num_groups, 7, but were 64, 128."),
    ("denoiser.attention_head_dim", 7,
     "denoiser.block_out_channels must be positive multiples of denoiser.attention_head_dim, 7 (the number of heads) "
     "where a level attends and at the last, but were 96, 160, 160."),
    ("denoiser.attention_head_dim", 0, "denoiser.attention_head_dim must be 1 or more, but was 0."),
    ("autoencoder.layers_per_block", 0, "autoencoder.layers_per_block must be 1 or more, but was 0.")])
def test_errors_name_stage_and_setting_as_the_file_has_them(name, value, sentence):
    with pytest.raises(InputError) as raised:
        read_settings("small", {name: value})
    assert str(raised.value) == sentence


def test_heads_must_divide_only_levels_that_attend():
    widths = {"denoiser.block_out_channels": [16, 144, 144], "denoiser.attention_head_dim": 9}
    assert read_settings("small", widths)["denoiser"]["block_out_channels"] == [16, 144, 144]
    with pytest.raises(InputError, match=r"9 \(the number of heads\) where a level attends"):
        read_settings("small", widths | {"denoiser.attention_levels": [True, True, True]})
    with pytest.raises(InputError, match=r"9 \(the number of heads\) .* at the last"):
        read_settings("small", widths | {"denoiser.block_out_channels": [144, 144, 160],
                                         "denoiser.attention_levels": [True, True, False]})


@pytest.mark.parametrize("text", ["[training\n", "[training]\nsteps = 5\n[nothing]\na = 1\n"])
def test_a_file_that_is_no_settings_is_refused(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.toml"):
        read_settings(path)


@pytest.mark.parametrize(("config", "words"), [("large", "but 'large' is neither a size nor a file."),
                                               (None, "but was None."), (3, "but was 3.")])
def test_what_is_neither_size_nor_file_lists_the_sizes(config, words):
    with pytest.raises(InputError) as raised:
        read_settings(config)
    assert str(raised.value) == f"config must be one of tiny, small, medium, base, or a TOML file, {words}"


def test_a_file_of_bytes_is_no_settings(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"c\.toml' is none"):
        read_settings(tmp_path / "c.toml")
