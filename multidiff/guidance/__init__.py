"""Guidance: denoisers that wrap denoisers.

Two choices are independent: where a second estimate comes from (`Null`, `Negative`, `Weaker`), and how the two become
one (the rules of `multidiff.guidance.combine`):

    Guided(denoiser, reference=Null(), combine=[Scale(3.0), Interval(0.2, 5.0), Rescale(0.7)])

`Gradient`, `Classifier` and `Inpaint` wrap in the same way, in any order:

    Inpaint(Guided(...), known, mask)
"""

from __future__ import annotations

from multidiff.guidance.cfgpp import CFGPlusPlus
from multidiff.guidance.combine import APG, CFGZeroStar, Combine, DynamicThreshold, Interval, Rescale, Scale
from multidiff.guidance.gradient import Classifier, Gradient
from multidiff.guidance.guided import Guided, Negative, Null, Reference, Weaker, Wrapper, perturbed
from multidiff.guidance.inpaint import Inpaint, Match
from multidiff.guidance.moment import Estimates, Moment
from multidiff.registry import Entry, build

__all__ = [
    "APG",
    "GUIDANCE",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Classifier",
    "Combine",
    "DynamicThreshold",
    "Estimates",
    "Gradient",
    "Guided",
    "Inpaint",
    "Interval",
    "Match",
    "Moment",
    "Negative",
    "Null",
    "Reference",
    "Rescale",
    "Scale",
    "Weaker",
    "Wrapper",
    "make",
    "perturbed",
]

GUIDANCE = {
    "null": Entry(Null, summary="reference: the same network without a condition (classifier-free guidance)"),
    "negative": Entry(Negative, summary="reference: the same network under a condition to move away from"),
    "weaker": Entry(Weaker, summary="reference: a smaller or earlier network (autoguidance)"),
    "perturbed": Entry(perturbed, summary="a network with modules replaced, its weights shared: for weaker"),
    "scale": Entry(Scale, summary="rule: how far from the reference, 1 is no guidance"),
    "interval": Entry(Interval, summary="rule: guidance at some noise levels only, one call at the others"),
    "rescale": Entry(Rescale, summary="rule: back to the deviation of the unguided estimate"),
    "apg": Entry(APG, summary="rule: projection, norm threshold and momentum against oversaturation"),
    "cfg-zero*": Entry(CFGZeroStar, summary="rule: a fitted reference and still first steps, for flow matching"),
    "dynamic-threshold": Entry(DynamicThreshold, summary="rule: clip to a quantile of each sample"),
    "cfg++": Entry(CFGPlusPlus, summary="rule: a scale of 0 to 1 with the reference's noise put back"),
    "gradient": Entry(Gradient, summary="wrapper: follow the gradient of a loss on the estimate"),
    "classifier": Entry(Classifier, summary="wrapper: follow a classifier of noisy states"),
    "match": Entry(Match, summary="loss for gradient: what is generated fits what is known"),
    "inpaint": Entry(Inpaint, summary="wrapper: keep what is known, generate the rest"),
}
"""Name -> reference, rule or wrapper, for `make` and `multidiff list guidance`."""


def make(name: str, **options: object) -> object:
    """The reference, rule or wrapper of that name.

    Raises:
        InputError: the name or an option is unknown.
    """
    return build("guidance", GUIDANCE, name, options)
