"""The controls of drawing from the prior: how to draw, and of which class."""

from typing import Any

from bokeh.models import Select, Slider, Spinner, UIElement

from hvq_jax.latents import Z_E
from hvq_jax.runs.class_labels import Labels
from hvq_jax.runs.loaded import LoadedRun

IN_TURN, NO_CLASS = "each class in turn", "no class"
_LARGEST_SEED = 2**32 - 1


class DrawingControls:
    """Sliders of the options that the run's prior has."""

    def __init__(self, run: LoadedRun) -> None:
        """Make the controls, at the values that change nothing."""
        prior = run.stream.prior
        self.seed = Spinner(title="Seed", low=0, high=_LARGEST_SEED, step=1, value=0, name="seed", width=100)
        self.sliders = {
            "temperature": Slider(title="Temperature of codes", start=0, end=2, step=0.05, value=1),
            "top_p": Slider(title="Top-p of codes", start=0.05, end=1, step=0.05, value=1),
        }
        if takes_no_class(run) and prior.num_classes:
            title = "Guidance to the class"
            self.sliders["guidance"] = Slider(title=title, start=0, end=4, step=0.1, value=0)
        if prior.heads:
            title = f"Temperature of {'residuals' if run.stream.model.row.uses(Z_E) else 'gains'}"
            self.sliders["continuous_temperature"] = Slider(title=title, start=0, end=2, step=0.05, value=1)
        for name, slider in self.sliders.items():
            slider.update(name=name, width=250)

    @property
    def models(self) -> list[UIElement]:
        """The widgets, from top to bottom."""
        return [*self.sliders.values(), self.seed]

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of `sample` and `complete`."""
        seed = 0 if self.seed.value is None else int(self.seed.value)
        # Sums of steps of 0.05 are not all multiples of it, and may exceed 1.
        return {"seed": seed, **{name: round(float(slider.value), 2) for name, slider in self.sliders.items()}}


def takes_no_class(run: LoadedRun) -> bool:
    """Return whether the prior of `run` can draw without being told a class."""
    return not run.stream.prior.num_classes or run.stream.options.prior.label_dropout > 0


def class_control(run: LoadedRun, *, in_turn: bool) -> Select:
    """Return the choice of a class, of which `labels` makes labels; hidden where the prior knows no classes."""
    first = [IN_TURN] if in_turn else []
    none = [NO_CLASS] if takes_no_class(run) else []
    choices = [(text, text) for text in (*first, *none)]
    choices += [(str(number), name) for number, name in enumerate(run.class_names)]
    conditional = run.stream.prior.num_classes > 0
    return Select(title="Class", options=choices, value=choices[0][0], visible=conditional, width=180)


def labels(run: LoadedRun, choice: str, count: int) -> Labels:
    """Return the labels of `count` images for a value of `class_control`; None for no class."""
    if not run.stream.prior.num_classes or choice == NO_CLASS:
        return None
    if choice == IN_TURN:
        return [number % len(run.class_names) for number in range(count)]
    return [int(choice)] * count
