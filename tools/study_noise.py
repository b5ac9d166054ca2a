"""How often the gate is wrong: an equivalent model that it blocks, a worse one that it lets pass.

    python tools/study_noise.py PROJECT [--seeds 24] [--worse-seeds 3] [--resamples 300]

PROJECT is a generated project whose data are split (`make setup validate`). The recipe of its
`params.yaml` is trained with many seeds: equivalent models, each of which may be the champion. Then
it is made worse, really: with fewer trees, without a column, on labels of which a share is
shuffled, on fewer rows. Each model is held against each champion, as the gate does it: the same
rows, the same paired bootstrap, every margin of the contract; floors are left out. The margins are
those of `contract.yaml` and those that `make contract` proposes for its terms from other seeds. The
same is done as with `model.seeds` of the contract, where each side is a few models and their mean
is judged. Prints tables.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gitops_ml.core.metric_catalogue import known_metrics
from gitops_ml.core.schema import load_schema
from gitops_ml.core.settings import Contract, Params, load_contract, load_params
from gitops_ml.features.derive import load_derivation
from gitops_ml.features.matrix import alike_columns
from gitops_ml.gate.base_rows import groups_of
from gitops_ml.gate.comparison import SEED
from gitops_ml.gate.retraining_noise import Part, Recipe, Spread, spread_of
from gitops_ml.model.metrics import Scored, kind_of, measure, resample_weights
from gitops_ml.model.own_metrics import metrics_of

# How many seeds `make contract` may be given, and how often it is drawn which.
PROPOSALS = (5, 8, 12, 16, 20)
DRAWS = 300
Floats = NDArray[np.float64]
Worsen = Callable[[Recipe, np.random.Generator], Recipe]
BINS = (-np.inf, 0.25, 0.75, 1.25, 1.75, 2.25, 3.0, np.inf)


@dataclass(frozen=True)
class Term:
    """A margin of the contract.

    Attributes:
        name: For people.
        part: What it compares.
        margin: As `contract.yaml` has it.
    """

    name: str
    part: Part
    margin: float

    @property
    def direction(self) -> int:
        return kind_of(self.part.metric).direction


@dataclass(frozen=True)
class Measured:
    """A model by every term.

    Attributes:
        values: Shape (terms,).
        resampled: Shape (terms, resamples), the same draws for every model.
    """

    values: Floats
    resampled: Floats


@dataclass(frozen=True)
class Rule:
    """What decides whether a model is blocked.

    Attributes:
        margins: Shape (terms,).
        seeds: Of how many models of each side the mean is judged.
    """

    margins: Floats
    seeds: int = 1


def terms_of(contract: Contract, test: pl.DataFrame) -> list[Term]:
    everything = np.ones(len(test), dtype=np.bool_)
    found = [
        Term(name, Part(name, everything), part.margin)
        for name, part in contract.model.metrics.items()
        if part.margin is not None
    ]
    for part in contract.model.slices:
        column = test.get_column(part.column).cast(pl.String)
        for value in column.drop_nulls().unique().sort():
            rows = (column == value).fill_null(False).to_numpy()
            if rows.sum() >= part.min_rows and part.margin is not None:
                name = f"{part.metric}, {part.column} {value}"
                found.append(Term(name, Part(part.metric, rows), part.margin))
    return found


class Ruler:
    """Measures models by every term, on draws that are the same for all."""

    def __init__(self, terms: Sequence[Term], groups: NDArray[Any] | None, resamples: int) -> None:
        self.terms = terms
        self._draws: list[list[Floats]] = []
        known: dict[bytes, list[Floats]] = {}
        for term in terms:
            rows = term.part.rows
            if rows.tobytes() not in known:
                inside = None if groups is None else groups[rows]
                known[rows.tobytes()] = list(
                    resample_weights(int(rows.sum()), resamples, SEED, inside)
                )
            self._draws.append(known[rows.tobytes()])

    def measure(self, scored: Scored) -> Measured:
        values, resampled = [], []
        for term, draws in zip(self.terms, self._draws, strict=True):
            inside = scored.take(term.part.rows)
            values.append(float(measure(term.part.metric, inside)[0]))
            resampled.append(
                np.concatenate([measure(term.part.metric, inside, draw) for draw in draws])
            )
        return Measured(np.array(values), np.array(resampled))


def blocked(
    terms: Sequence[Term],
    margins: Floats,
    champion: Measured,
    challenger: Measured,
    confidence: float,
) -> NDArray[np.bool_]:
    """By which terms a challenger is blocked; shape (terms,)."""
    directions = np.array([term.direction for term in terms])
    advantage = directions[:, None] * (challenger.resampled - champion.resampled)
    return np.asarray(np.quantile(advantage, 1 - confidence, axis=1) < -margins)


def mean_of(models: Sequence[Measured]) -> Measured:
    """What the mean of some models is, by every term."""
    return Measured(
        np.mean([one.values for one in models], axis=0),
        np.mean([one.resampled for one in models], axis=0),
    )


def sides(models: Sequence[Measured], seeds: int) -> list[Measured]:
    """The models in groups of some seeds each, none in two of them."""
    return [
        mean_of(models[start : start + seeds]) for start in range(0, len(models) - seeds + 1, seeds)
    ]


def pairs(models: Sequence[Measured], seeds: int) -> Iterator[tuple[Measured, Measured]]:
    """Equivalent champions and challengers, each of some seeds."""
    if seeds == 1:
        yield from itertools.permutations(models, 2)
        return
    random = np.random.default_rng(0)
    for _ in range(DRAWS):
        chosen = [models[place] for place in random.permutation(len(models))[: 2 * seeds]]
        yield mean_of(chosen[:seeds]), mean_of(chosen[seeds:])


def proposals(terms: Sequence[Term], models: Sequence[Measured], confidence: float) -> None:
    """Draw again and again which models propose the margins, and let the others be judged."""
    directions = np.array([term.direction for term in terms])
    values = np.array([model.values for model in models])
    resampled = np.array([model.resampled for model in models])
    bounds = np.full((len(models), *values.shape), np.inf)
    for place in range(len(models)):
        advantage = directions[:, None] * (resampled - resampled[place])
        bounds[place] = np.quantile(advantage, 1 - confidence, axis=2)
        bounds[place, place] = np.inf
    others = ~np.eye(len(models), dtype=bool)
    widths = directions * (values - values[:, None]) - bounds
    half_widths = widths[others].mean(axis=0)
    random = np.random.default_rng(0)
    rows, means = [], {}
    for seeds in PROPOSALS:
        if seeds > len(models) - 4:
            break
        found = []
        for _ in range(DRAWS):
            order = random.permutation(len(models))
            asked, judged = order[:seeds], order[seeds : seeds + 24]
            margins = [
                Spread(seeds, float(spread), float(width)).margin(len(terms))
                for spread, width in zip(values[asked].std(0, ddof=1), half_widths, strict=True)
            ]
            alarms = (bounds[np.ix_(judged, judged)] < -np.array(margins)).any(axis=2)
            ranks = np.argsort(directions[0] * values[judged, 0])
            per_champion = alarms.sum(axis=1) / (len(judged) - 1)
            average, luckiest = per_champion[ranks[[len(ranks) // 2, -1]]]
            found.append((*margins, average, luckiest, per_champion.mean()))
        mean = np.mean(found, axis=0)
        spread = np.quantile([one[0] for one in found], [0.1, 0.9])
        shown = f"{mean[0]:.2g} ({spread[0]:.2g} to {spread[1]:.2g})"
        rows.append([str(seeds), shown, *(f"{share:.1%}" for share in mean[-3:])])
        means[str(seeds)] = mean[:-3]
    print(f"An equivalent model is blocked, mean of {DRAWS} draws of the seeds that propose\n")
    head = [f"margin of {terms[0].name} (10 to 90 %)", "average", "luckiest", "each in turn"]
    table(["seeds", *head], rows)
    print("The margins that are proposed, mean of these draws; by the number of seeds\n")
    table(
        ["term", *means],
        [
            [term.name, *(f"{margins[place]:.3g}" for margins in means.values())]
            for place, term in enumerate(terms)
        ],
    )


def fewer_trees(share: float) -> Worsen:
    def worsen(recipe: Recipe, random: np.random.Generator) -> Recipe:
        numbers = dict(recipe.params.train.hyperparameters)
        numbers["max_iter"] = round(numbers["max_iter"] * share)
        train = recipe.params.train.model_copy(update={"hyperparameters": numbers})
        return replace(recipe, params=recipe.params.model_copy(update={"train": train}))

    return worsen


def without(place: int) -> Worsen:
    def worsen(recipe: Recipe, random: np.random.Generator) -> Recipe:
        seen, asked = recipe.matrix.copy(), recipe.test_matrix.copy()
        # What is the same in every row is no column to learn from.
        seen[:, place] = asked[:, place] = 0.0
        return replace(recipe, matrix=seen, test_matrix=asked)

    return worsen


def shuffled_labels(share: float) -> Worsen:
    def worsen(recipe: Recipe, random: np.random.Generator) -> Recipe:
        target = recipe.target.copy()
        rows = np.flatnonzero(random.random(len(target)) < share)
        target[rows] = target[random.permutation(rows)]
        return replace(recipe, target=target)

    return worsen


def fewer_rows(share: float) -> Worsen:
    def worsen(recipe: Recipe, random: np.random.Generator) -> Recipe:
        kept = random.random(len(recipe.target)) < share
        return replace(recipe, matrix=recipe.matrix[kept], target=recipe.target[kept])

    return worsen


def ways(recipe: Recipe) -> Iterator[tuple[str, Worsen]]:
    """The ways in which a recipe gets worse."""
    if "max_iter" in recipe.params.train.hyperparameters:
        for share in (0.5, 0.33, 0.2, 0.1):
            yield f"{share:.0%} of the trees", fewer_trees(share)
    for place, name in enumerate(recipe.features.names):
        yield f"without {name}", without(place)
    for share in (0.1, 0.2, 0.3, 0.45, 0.6):
        yield f"{share:.0%} of the labels shuffled", shuffled_labels(share)
    for share in (0.66, 0.5, 0.33, 0.2, 0.1):
        yield f"{share:.0%} of the rows", fewer_rows(share)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        print(
            f"| {' | '.join(word.ljust(width) for word, width in zip(row, widths, strict=True))} |"
        )
    print(flush=True)


def share(values: Any) -> str:
    return f"{np.mean(values):.1%} ({int(np.sum(values))} of {len(values)})"


def study(params: Params, contract: Contract, recipe: Recipe, options: argparse.Namespace) -> None:
    start = time.monotonic()
    given = [item.name for item in recipe.features.given]
    alike = alike_columns(given, recipe.features.inputs, params)
    groups = groups_of(recipe.test, params, alike)
    terms = terms_of(contract, recipe.test)
    confidence = contract.model.confidence
    proposing = [recipe.answers(seed) for seed in range(1, options.proposing + 1)]
    spreads = [spread_of(t.part, proposing, confidence, groups) for t in terms]
    margins = np.array([term.margin for term in terms])

    def proposed(seeds: int) -> Floats:
        return np.array(
            [
                term.margin if spread is None else spread.margin(len(terms), seeds=seeds)
                for term, spread in zip(terms, spreads, strict=True)
            ]
        )

    several = options.average
    rules = {
        "contract.yaml": Rule(margins),
        "proposed": Rule(proposed(1)),
        f"contract.yaml, {several} seeds": Rule(margins, several),
        f"proposed, {several} seeds": Rule(proposed(several), several),
    }
    ruler = Ruler(terms, groups, options.resamples)
    seeds = range(options.proposing + 1, options.proposing + 1 + options.seeds)
    models = [ruler.measure(recipe.answers(seed)) for seed in seeds]
    proposed_by = [ruler.measure(one) for one in proposing]
    values = np.array([model.values for model in models])
    print(f"{len(recipe.target)} training rows, {len(recipe.test)} test rows, {len(terms)} terms")
    print(f"{time.monotonic() - start:.0f} s for {len(models) + len(proposing)} models\n")

    print("Margins\n")
    shown = {
        name: rule for name, rule in rules.items() if name != f"contract.yaml, {several} seeds"
    }
    table(
        ["term", "spread between seeds", "half width", *shown],
        [
            [
                term.name,
                f"{values[:, place].std(ddof=1):.2g}",
                "-" if spread is None else f"{spread.half_width:.2g}",
                *(f"{rule.margins[place]:.2g}" for rule in shown.values()),
            ]
            for place, (term, spread) in enumerate(zip(terms, spreads, strict=True))
        ],
    )

    def alarms(rule: Rule, pairs: Iterable[tuple[Measured, Measured]]) -> str:
        return share(
            [bool(blocked(terms, rule.margins, *pair, confidence).any()) for pair in pairs]
        )

    order = np.argsort(terms[0].direction * values[:, 0])
    rows = []
    for who, place in (("average", order[len(order) // 2]), ("luckiest", order[-1])):
        others = [(models[place], one) for one in models if one is not models[place]]
        told = [alarms(rule, others) if rule.seeds == 1 else "-" for rule in rules.values()]
        rows.append([f"{who} ({seeds[place]})", *told])
    told = [alarms(rule, pairs(models, rule.seeds)) for rule in rules.values()]
    rows.append(["each in turn", *told])
    print("An equivalent model (another seed) is blocked\n")
    table(["champion", *rules], rows)

    proposals(terms, [*proposed_by, *models], confidence)

    losses, verdicts = [], {name: list[NDArray[np.bool_]]() for name in rules}
    rows = []
    directions = np.array([term.direction for term in terms])
    for name, worsen in ways(recipe):
        if time.monotonic() - start > options.minutes * 60:
            print(f"Stopped before `{name}`: {options.minutes:g} minutes are over\n")
            break
        worse = [
            ruler.measure(worsen(recipe, np.random.default_rng(seed)).answers(seed))
            for seed in range(101, 101 + options.worse_seeds)
        ]
        found = np.array([model.values for model in worse])
        loss = directions * (values.mean(axis=0) - found.mean(axis=0))
        losses.append(loss)
        row = [name, f"{loss[0]:+.4f}"]
        for which, rule in rules.items():
            decided = [
                blocked(terms, rule.margins, champion, challenger, confidence)
                for champion in sides(models, rule.seeds)
                for challenger in sides(worse, rule.seeds)
            ]
            verdicts[which].append(np.array(decided))
            if which in shown:
                row += [f"{(loss / rule.margins).max():.1f}", share(verdicts[which][-1].any(1))]
        rows.append(row)
    print("A worse model is blocked; most: its largest loss of all terms, in margins\n")
    heads = [text for which in shown for text in (f"most, {which}", f"blocked, {which}")]
    table(["worse by", f"loss of {terms[0].name}", *heads], rows)

    print("A single term blocks, by the true loss in its margins\n")
    body = []
    for low, high in itertools.pairwise(BINS):
        line = [f"{low:g} to {high:g}"]
        for which, rule in rules.items():
            outcomes = [
                decided[:, place]
                for loss, decided in zip(losses, verdicts[which], strict=True)
                for place in range(len(terms))
                if low <= loss[place] / rule.margins[place] < high
            ]
            line.append(share(np.concatenate(outcomes)) if outcomes else "-")
        body.append(line)
    table(["loss in margins", *rules], body)
    print(f"{time.monotonic() - start:.0f} s in all")


def main() -> None:
    """Run the study in a project's folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path, metavar="PROJECT")
    parser.add_argument("--proposing", type=int, default=24, help="models that margins go by")
    parser.add_argument("--seeds", type=int, default=24, help="equivalent models that are judged")
    parser.add_argument("--average", type=int, default=3, help="seeds of each side, as a mean")
    parser.add_argument("--worse-seeds", type=int, default=3, help="of each worse recipe")
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap")
    parser.add_argument("--minutes", type=float, default=20, help="begin no worse recipe after")
    options = parser.parse_args()
    os.chdir(options.project)
    root = Path()
    params, schema, contract = load_params(root), load_schema(root), load_contract(root)
    with metrics_of(root):
        known_metrics(root)
        derivation = load_derivation(root, schema, params.target)
        study(params, contract, Recipe.read(root, params, schema, derivation), options)


if __name__ == "__main__":
    main()
