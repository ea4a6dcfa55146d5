"""What measures of a generator share: the model, real and drawn sinograms, their images."""

import json

import numpy as np

from allpet_gen.evaluation.classifier import load_classifier, save_classifier
from allpet_gen.evaluation.generated_table import class_words, draw_like, held_out, residuals, trained_classifier


class Setup:
    """The model, the real sinograms and, once asked for, the generated ones and all images."""

    def __init__(self, arguments):
        import inspect

        from allpet_gen import SinogramGenerationPipeline
        from allpet_physics.simulation.cohort_reader import read_cohort

        self.arguments = arguments
        self.pipe = SinogramGenerationPipeline.from_pretrained(arguments.model)
        defaults = inspect.signature(self.pipe.__call__).parameters
        self.steering = {name: defaults[name].default if getattr(arguments, name) is None else getattr(arguments, name)
                         for name in ("guidance", "guidance_start", "rescale")}
        self.cohort = read_cohort(arguments.store)
        self.test = held_out(self.cohort, arguments.split)
        self._made, self._images, self._classifier = {}, {}, None

    def train(self, per_class=None):
        """Return the training sinograms."""
        return held_out(self.cohort, "train", per_class or 500)

    def generated(self, **options):
        """Return drawn sinograms, as many of each class as will make the number asked for."""
        key = json.dumps(sorted((k, str(v)) for k, v in options.items()))
        if key not in self._made:
            chosen = {"steps": self.arguments.steps, **self.steering} | options
            drawn = draw_like(self.pipe, self.test, self.arguments.count, seed=self.arguments.seed, **chosen)
            self._made[key] = drawn.counts, drawn.labels
        return self._made[key]

    def guided(self):
        """Return sinograms drawn with range guidance towards what real training sinograms of each class have."""
        from allpet_gen.guidance import RangeGuidance

        train, test, made = self.train(90), self.test, []
        per_class = -(-self.arguments.count // len(test.classes)) // 3
        for k, prompt in enumerate(test.classes):
            target = residuals(train.counts[train.labels == k], test.geometry).mean(0)
            guide = RangeGuidance(test.geometry, 1.0, target=tuple(target))
            made.append(self.pipe(prompt, count=per_class, seed=self.arguments.seed * 10**6 + k * per_class, batch=50,
                                  steps=self.arguments.steps, reconstruct=None, guides=(guide,),
                                  **self.steering).sinograms)
        return np.concatenate(made), np.repeat(np.arange(len(test.classes)), per_class)

    def classifier(self):
        """Return the classifier of real training sinograms, from the folder where it was kept, or trained once."""
        if self._classifier is None:
            folder = self.arguments.classifier
            if folder is not None and folder.exists():
                self._classifier = load_classifier(folder)
            else:
                self._classifier = trained_classifier(self.cohort, 500, 20)
                if folder is not None:
                    save_classifier(self._classifier, folder)
        return self._classifier

    def images(self, name, sinograms):
        """Return uncorrected OSEM images, made once."""
        from allpet_gen.generated import reconstruct_uncorrected

        if name not in self._images:
            self._images[name] = reconstruct_uncorrected(sinograms, self.test.geometry)[0]
        return self._images[name]


def expectations(cohort, test, rows) -> np.ndarray:
    """Return the expected counts behind stored sinograms, float32 (n, angle, bin)."""
    split = str(cohort.splits[np.flatnonzero(cohort.patients == test.patients[0])[0]])
    parts, out = {}, []
    regions, tracers = class_words(test)
    for row in rows:
        region, tracer = regions[test.labels[row]], tracers[test.labels[row]]
        if region not in parts:
            parts[region] = cohort.select(split=split, region=region)
        study = parts[region].study(int(row % test.per_class))
        out.append(np.asarray(study.scan(tracer).expected, np.float32).reshape(test.geometry.sinogram_shape))
    return np.stack(out)


def psnr(reference, image) -> np.ndarray:
    """Return 20 log10(max / RMSE) of each image, with the maximum of the reference."""
    error = np.square(reference - image).mean((1, 2))
    return 10 * np.log10(reference.max((1, 2)) ** 2 / error)


def decoded_counts(autoencoder, data, rows, seed: int) -> np.ndarray:
    """Return the expected counts of sinograms that were encoded (mean of the posterior) and decoded, float32."""
    import torch

    from allpet_gen.data import CompositeDataset

    side, made = data.geometry.image_shape[0], []
    masks = {"n_blocks": [1, 6], "block_px": [max(2, side // 32), side // 8]}
    items = CompositeDataset(data, autoencoder, masks, {"rotation_deg": 0.0, "mirror": 0.0}, seed)
    with torch.no_grad():
        for start in range(0, len(rows), 30):
            x = torch.stack([items.item(0, int(i), 0, False) for i in rows[start:start + 30]])
            made.append(autoencoder.counts(autoencoder.standardise(autoencoder.encode(x).mean)).numpy())
    return np.concatenate(made)
