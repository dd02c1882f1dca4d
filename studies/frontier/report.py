"""The tables and numbers of the frontier, from the results so far."""

import math
import statistics
from collections import defaultdict
from pathlib import Path

from studies.comparison import Difference, common_place
from studies.frontier.cells import BASE_CODES, SEEDS, SMALL, Size, Training, trainings
from studies.frontier.curves import ANCHOR, DECODERS, RATES, Made, by_curve, compare, means, read_all
from studies.frontier.results import is_made, read_training, results_folder
from studies.markdown import markdown
from studies.numbers import format_number
from studies.tables import spread

_PAIRS = (("coded", "fine-tuned"), ("coded", "as trained"), ("static", "fine-tuned"), ("static", "as trained"))


class Study:
    """The results of one size, read once."""

    def __init__(self, size: Size = SMALL, results: Path | None = None) -> None:
        self.results = results_folder(size.name) if results is None else results
        self.trainings = trainings(size)
        self.made = read_all(self.trainings, self.results)
        self.curves = by_curve(self.made)

    def progress(self) -> str:
        """Return a table of what is planned and what is made, with the minutes of CPU."""
        rows = []
        for name, planned in _by_latent(self.trainings).items():
            made = [training for training in planned if is_made(training, self.results)]
            points = sum(len(training.points) for training in planned)
            results = [each for each in self.made if each.training in planned]
            seconds = [about["cpu_seconds"] for each in planned if (about := read_training(each, self.results))]
            seconds += [each.result["cpu_seconds"] for each in results]
            seeds = sorted({training.cell.seed for training in planned})
            rows.append(
                [
                    name,
                    "; ".join(dict.fromkeys(training.cell.labels["sizes"] for training in planned)),
                    str(len(seeds)),
                    f"{len(made)} of {len(planned)}",
                    f"{len(results)} of {points}",
                    f"{sum(seconds) / 60:.0f}",
                ]
            )
        return markdown(["latent", "sizes", "seeds", "trainings", "points", "minutes of CPU so far"], rows)

    def _minutes(self) -> dict[str, float]:
        """Return the mean minutes of CPU of a training and of a point, and the hours that all would take at that."""
        known = [about["cpu_seconds"] for each in self.trainings if (about := read_training(each, self.results))]
        each = {"training/minutes": known, "point/minutes": [made.result["cpu_seconds"] for made in self.made]}
        minutes = {name: statistics.mean(seconds) / 60 for name, seconds in each.items() if seconds}
        if len(minutes) == len(each):
            points = sum(len(training.points) for training in self.trainings)
            in_all = len(self.trainings) * minutes["training/minutes"] + points * minutes["point/minutes"]
            minutes["planned/hours"] = in_all / 60
        return minutes

    def points(self) -> str:
        """Return a table with one row per place on a curve: means over seeds, and half the range."""
        rows = []
        for curve, made in self.curves.items():
            places: dict[str, list[Made]] = defaultdict(list)
            for each in made:
                places[each.point.value].append(each)
            for value, same in places.items():
                found = [each.result for each in same]
                rows.append(
                    [
                        curve,
                        value,
                        str(len(found)),
                        *(spread([RATES[rate](each) for each in found]) for rate in ("coded", "prior", "static")),
                        spread([each["prior_bits"]["continuous"] for each in found]),
                        *(spread([DECODERS[name](each)["mse"] for each in found]) for name in DECODERS),
                        *(spread([each["fine_tuned"][name] for each in found]) for name in ("psnr", "ssim")),
                        common_place(found),
                    ]
                )
        head = ["curve", "point", "seeds", "bits in a file", "under the prior", "by static codes"]
        head += [
            "of these under the prior, continuous",
            "MSE, fine-tuned",
            "MSE, as trained",
            "PSNR, dB",
            "SSIM",
            "device",
        ]
        return markdown(head, rows)

    def bd_rates(self) -> str:
        """Return a table with the BD-rate of each curve against `vq`: percent, and the interval over seeds."""
        rows = []
        for curve in self.curves:
            found = [compare(self.made, curve, *pair) for pair in _PAIRS]
            if curve == ANCHOR or found[0] is None:
                continue
            first = found[0]
            rows.append(
                [
                    curve,
                    str(len(first.by_seed)),
                    *("" if each is None else _percent(each.change) for each in found),
                    f"{first.low:.1f} to {first.high:.1f}" if first.low < first.high else "another range per seed",
                    f"{first.share:.0%}".replace("%", " %"),
                    common_place([each.result for name in (curve, ANCHOR) for each in self.curves[name]]),
                ]
            )
        head = ["curve", "seeds", *(f"{rate}, {decoder}" for rate, decoder in _PAIRS), "compared, dB", "of its range"]
        return markdown([*head, "device"], rows)

    def controls(self) -> str:
        """Return a table with G gains of K codes beside `vq` with K·G codes: means over the seeds that both have."""
        rows = []
        for each in means(self.curves.get("projected", []), "coded", "fine-tuned"):
            gains = int(each.value.removeprefix("G="))
            ours, others = (
                {made.seed: made.result for made in self.curves.get(curve, []) if made.point.value == value}
                for curve, value in (("projected", each.value), (ANCHOR, f"K={BASE_CODES * gains}"))
            )
            seeds = sorted(ours.keys() & others.keys())
            if not seeds:
                continue
            of_both = [[side[seed] for seed in seeds] for side in (ours, others)]
            rows.append(
                [
                    f"{BASE_CODES} × {gains}",
                    str(len(seeds)),
                    *(
                        spread([RATES[rate](result) for result in side])
                        for rate in ("coded", "static")
                        for side in of_both
                    ),
                    *(spread([result["fine_tuned"]["mse"] for result in side]) for side in of_both),
                    common_place([result for side in of_both for result in side]),
                ]
            )
        pairs = [f"{name}, {of}" for name in ("bits in a file", "by static codes", "MSE") for of in ("K and G", "K·G")]
        return markdown(["codes × gains", "seeds", *pairs, "device"], rows)

    def orders(self) -> str:
        """Return a table of nats per latent in both orders of transmission."""
        by_point: dict[tuple[str, str], list[tuple[Made, list[float]]]] = defaultdict(list)
        for each in self.made:
            if (nats := self._nats_of_orders(each)) is not None:
                by_point[each.point.curve, each.point.value].append((each, nats))
        rows = []
        for (curve, value), found in by_point.items():
            columns = zip(*(nats for _, nats in found), strict=True)
            where = common_place([each.result for each, _ in found])
            rows.append([curve, value, str(len(found)), *(spread(list(column)) for column in columns), where])
        head = ["curve", "point", "seeds", "position by position: codes", "continuous", "together"]
        return markdown([*head, "codes first: codes", "continuous", "together", "device"], rows)

    def _nats_of_orders(self, each: Made) -> list[float] | None:
        """Return the nats of codes, continuous parts and both in either order; None where not both were measured.

        The prior over codes alone is that of one bin per code.
        """
        other = each.result.get("codes_first_bits")
        alone = [made.result for made in self.made if made.training == each.training and made.point.value == "G=1"]
        if other is None or not alone:
            return None
        usual = [each.result["prior_bits"][name] * math.log(2) for name in ("codes", "continuous")]
        first = [alone[0]["prior_bits"]["codes"] * math.log(2), other["continuous"] * math.log(2)]
        return [*usual, sum(usual), *first, sum(first)]

    def gains(self) -> str:
        """Return a table of what is left to a gain: radial share, and the spread of ρ given the code."""
        rows = []
        for name, planned in _by_latent(self.trainings).items():
            known = [about for training in planned if (about := read_training(training, self.results))]
            for sizes in dict.fromkeys(about["sizes"] for about in known):
                found = [about for about in known if about["sizes"] == sizes]
                columns = ("mse", "perplexity", "share_outside", "length_mean", "length_spread", "spread_within_codes")
                values = [spread([about.get(key) for about in found]) for key in (*columns, "radial_share")]
                rows.append([name, sizes, str(len(found)), *values, common_place(found)])
        head = [
            "latent",
            "sizes",
            "seeds",
            "MSE, not rounded",
            "perplexity",
            "outside the mask",
            "ρ, mean",
            "ρ, spread",
        ]
        return markdown([*head, "ρ, spread within codes", "radial share", "device"], rows)

    def tables(self) -> dict[str, str]:
        """Return all tables by name."""
        names = ("progress", "points", "bd_rates", "controls", "orders", "gains")
        return {name: getattr(self, name)() for name in names}

    def numbers(self) -> dict[str, float]:
        """Return the numbers of the page.

        "CURVE/POINT/mse" and, of rates, "CURVE/POINT/coded" are means over seeds, as is "CURVE/POINT/continuous", the
        bits under the prior of the continuous part; "CURVE/bd/RATE DECODER/change" is a BD-rate, with "interval",
        "seeds", "low" and "high"; "made/points" and the like count what is made.
        """
        numbers: dict[str, float] = {
            "planned/trainings": len(self.trainings),
            "planned/points": sum(len(training.points) for training in self.trainings),
            "made/trainings": sum(is_made(training, self.results) for training in self.trainings),
            "made/points": len(self.made),
            "seeds": len(SEEDS),
            **self._minutes(),
            "prior/least parameters": min((each.result["prior_parameters"] for each in self.made), default=0),
            "prior/most parameters": max((each.result["prior_parameters"] for each in self.made), default=0),
        }
        for curve, made in self.curves.items():
            for rate in RATES:
                for each in means(made, rate, "fine-tuned"):
                    numbers[f"{curve}/{each.value}/{rate}"] = each.bits
                    numbers[f"{curve}/{each.value}/mse"] = each.mse
                    numbers[f"{curve}/{each.value}/psnr"] = each.psnr
            for value in dict.fromkeys(each.point.value for each in made):
                sent = [each.result["prior_bits"]["continuous"] for each in made if each.point.value == value]
                numbers[f"{curve}/{value}/continuous"] = statistics.mean(sent)
            for each in means(made, "coded", "as trained"):
                numbers[f"{curve}/{each.value}/as trained/mse"] = each.mse
            for rate, decoder in _PAIRS:
                found = None if curve == ANCHOR else compare(self.made, curve, rate, decoder)
                if found is not None:
                    numbers |= {
                        f"{curve}/bd/{rate} {decoder}/change": found.change.mean,
                        f"{curve}/bd/{rate} {decoder}/interval": found.change.half_width,
                        f"{curve}/bd/{rate} {decoder}/seeds": len(found.by_seed),
                        f"{curve}/bd/{rate} {decoder}/low": found.low,
                        f"{curve}/bd/{rate} {decoder}/high": found.high,
                    }
        for training in self.trainings:
            about = read_training(training, self.results)
            for key in ("radial_share", "share_outside", "spread_within_codes", "length_spread"):
                if about is not None and key in about:
                    name = f"{training.cell.labels['latent']}, {training.cell.labels['sizes']}/{key}"
                    numbers[f"{name}/seed {about['seed']}"] = about[key]
        return numbers | _means_over_seeds(numbers)


def _means_over_seeds(numbers: dict[str, float]) -> dict[str, float]:
    """Return the mean of all "NAME/seed N" as "NAME"."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in numbers.items():
        start, separator, _ = name.rpartition("/seed ")
        if separator:
            found[start].append(value)
    return {name: statistics.mean(values) for name, values in found.items()}


def _by_latent(planned: list[Training]) -> dict[str, list[Training]]:
    """Return the trainings of each latent, those with other numbers of codes or another S apart from the first."""
    found: dict[str, list[Training]] = defaultdict(list)
    for training in planned:
        found[training.points[0].curve].append(training)
    return dict(found)


def _percent(change: Difference) -> str:
    """Return a difference of rates in percent, with its interval if there are several seeds.

    >>> _percent(Difference(-0.104, 0.052, 3)), _percent(Difference(0.2, math.inf, 1))
    ('−10.4 ± 5.2 %', '+20.0 %')
    """
    mean = format_number(100 * change.mean, "+.1f")
    return f"{mean} %" if math.isinf(change.half_width) else f"{mean} ± {100 * change.half_width:.1f} %"
