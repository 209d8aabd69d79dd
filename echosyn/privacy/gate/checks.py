"""What is required of a release: one Check per number of the audits, in the order of the page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One requirement: a flat number, the rule it is held against, and what it means.

    Rules: `at_least` and `at_most` compare the value with the field `limit` of Thresholds (by
    default the check's name); `includes` wants the target within the interval (less
    Thresholds.avoidance for attacks by nearness, which the filter itself pushes down: whoever
    nothing comes close to was trained on); `not_above` wants the interval's lower end at the target
    or below. Attacks, whose target is a coin's 0.5 or a risk of 0, may begin Thresholds.advantage
    above it. A target is a number or the name of another flat number.
    """

    name: str
    key: str
    rule: str
    title: str
    meaning: str
    failed: str
    target: float | str = 0.5
    narrow: bool = False  # refuse an interval wider than Thresholds.widest
    avoids: bool = False  # Thresholds.avoidance applies
    limit: str = ""

    @property
    def attack(self) -> bool:
        """Whether Thresholds.advantage applies."""
        return self.rule in ("includes", "not_above") and self.target in (0.0, 0.5)


CHECKS = (
    Check(
        "planted_exact",
        "privacy/planted_exact_recall",
        "at_least",
        "Exact copies are caught",
        "Hearts of real patients were hidden among the synthetic ones, unchanged. This is the "
        "share that the filter found.",
        "The filter lets copies of patients through: its threshold or its encoder is broken.",
    ),
    Check(
        "planted_light",
        "privacy/planted_light_recall",
        "at_least",
        "Lightly disguised copies are caught",
        "The same, with each hidden heart slightly moved, turned, scaled, brightened, blurred and "
        "made noisy.",
        "A copy that is slightly changed escapes the filter: train the encoder with stronger "
        "augmentation, or allow more false rejection.",
    ),
    Check(
        "planted_videos_exact",
        "privacy_videos/planted_exact_recall",
        "at_least",
        "Exact copies of videos are caught",
        "Videos of real patients were put before the filter on finished videos, unchanged. This is "
        "the share that it found.",
        "The filter lets videos of patients through.",
        limit="planted_exact",
    ),
    Check(
        "planted_videos_light",
        "privacy_videos/planted_light_recall",
        "at_least",
        "Lightly disguised copies of videos are caught",
        "The same, with each hidden video slightly moved, turned, scaled, brightened, blurred and "
        "made noisy.",
        "A video that is slightly changed escapes both detectors.",
        limit="planted_light",
    ),
    Check(
        "planted_videos_rebuilt",
        "privacy_videos/planted_rebuilt_recall",
        "at_least",
        "Copies that a generator would make are caught",
        "The same videos of patients after a pass through the autoencoder, painted with speckle as "
        "synthetic ones are: as a generator would show a video that it knows by heart.",
        "A generator that memorises a patient's video would get it through the filter.",
        limit="planted_exact",
    ),
    Check(
        "false_rejection",
        "privacy/false_rejection_heldout",
        "includes",
        "The filter refuses strangers as rarely as promised",
        "Share of hearts, of patients that no model has seen, that the filter takes for a training "
        "patient's. It must agree with the rate that the threshold was set for.",
        "The threshold does not keep its promise on new patients: those that set it are unlike "
        "those that tested it, or too few.",
        "privacy/false_rejection_calibrated",
        narrow=True,
    ),
    Check(
        "rejection",
        "privacy/rejection_rate",
        "at_most",
        "Few synthetic hearts had to be refused",
        "Share of drawn hearts that the filter refused. A generator that memorises draws mostly "
        "hearts that are too close to a patient.",
        "The generator draws patients instead of new hearts; what was accepted is the rest of "
        "them. Train on more patients, or for fewer steps.",
    ),
    Check(
        "false_rejection_videos",
        "privacy_videos/false_rejection_heldout",
        "not_above",
        "The filter on videos refuses strangers no more often than promised",
        "Share of whole videos, of patients that no model has seen, that either detector takes for "
        "a training patient's.",
        "The thresholds on videos do not keep their promise on new patients.",
        "privacy_videos/false_rejection_calibrated",
        narrow=True,
    ),
    Check(
        "rejection_videos",
        "privacy_videos/rejection_rate",
        "at_most",
        "Few synthetic videos had to be refused",
        "Share of finished videos that the filter refused, though their hearts had passed.",
        "The video generator drifts towards patients: it was trained too long, or on too few.",
        limit="rejection",
    ),
    Check(
        "membership",
        "privacy/membership_auc",
        "includes",
        "Nearness to the release does not reveal who was trained on",
        "An attacker who holds a patient's heart and the release guesses whether the patient was "
        "in the training data, by how similar the closest synthetic heart is. 0.5 is a coin.",
        "Above 0.5 synthetic hearts lie closer to training patients than to others; below 0.5 they "
        "avoid them, which gives them away as well.",
        narrow=True,
        avoids=True,
    ),
    Check(
        "dcr_share",
        "privacy/membership_dcr_share",
        "not_above",
        "Synthetic hearts are no closer to training patients than to strangers",
        "Share of synthetic hearts whose closest real heart belongs to a training patient, among "
        "as many training patients as strangers. 0.5 is chance; the filter pushes it below.",
        "Synthetic hearts lean towards the training patients.",
        narrow=True,
    ),
    Check(
        "nearest_neighbour",
        "privacy/membership_nn_auc",
        "includes",
        "Cell by cell, the release does not reveal who was trained on",
        "The attack by nearness once more, without our encoder: plain distances between images.",
        "Above 0.5 the release holds near copies that our encoder does not see; below 0.5 it "
        "avoids training patients.",
        narrow=True,
        avoids=True,
    ),
    Check(
        "loss",
        "privacy/membership_loss_auc",
        "includes",
        "The generator does not know its training patients by heart",
        "An attacker who holds the generator itself, which is not released, guesses by how well it "
        "restores a patient's heart from noise. 0.5 is a coin.",
        "The generator restores training patients better than others: it has begun to memorise.",
        narrow=True,
    ),
    Check(
        "attribute",
        "privacy/attribute_risk",
        "not_above",
        "The release does not tell a training patient's EF, heart rate or class",
        "An attacker who has a patient's echo predicts these from the labels of the release. This "
        "is how much oftener it works on training patients than on strangers, as a share of what "
        "fails on strangers: 0 is no oftener, 1 always.",
        "Training patients lie beside released videos that carry their own labels: the generator "
        "repeats hearts together with what they were labelled.",
        target=0.0,
        narrow=True,
    ),
    Check(
        "singling_out",
        "privacy/singling_out_risk",
        "not_above",
        "A released video does not describe exactly one training patient",
        "An attacker describes a released video by its looks and labels, so narrowly that hardly "
        "anybody fits. This is how much oftener exactly one training patient fits than exactly one "
        "of as many strangers.",
        "Descriptions of released videos fit single training patients: their looks, or their exact "
        "labels, were repeated.",
        target=0.0,
        narrow=True,
    ),
    Check(
        "linkability",
        "privacy/linkability_risk",
        "not_above",
        "The release does not join two records of one training patient",
        "An attacker with two records of a patient, such as an echo and a list with EF and heart "
        "rate, joins them when the same released video is nearest to both. This is how much "
        "oftener it works on training patients than on strangers.",
        "Released videos stand for single training patients: what is near in looks is near in "
        "labels, or in another frame, too.",
        target=0.0,
        narrow=True,
    ),
    Check(
        "canary",
        "privacy/canary_relative",
        "at_most",
        "A planted mark does not come back",
        "A mark was added to a few patients before training. This bounds how often it comes back, "
        "as a part of how often a generator would show it that only repeats patients.",
        "Marked patients may be reproduced, or too few samples were drawn to exclude it.",
    ),
)
