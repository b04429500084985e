"""The classes: emoji subcategories merged so that images of one class share a layout."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

NULL_CLASS = 1000  # of the unconditional branch: `DiTPipeline` fixes it


def words(text: str) -> frozenset[str]:
    """Split a text.

    Args:
        text: words separated by spaces.

    Returns:
        The words.
    """
    return frozenset(text.split())


ANIMAL_FACES = words(
    "mouse cow tiger rabbit cat horse monkey_face dog pig hamster wolf polar_bear bear panda_face "
    "lion_face unicorn_face fox_face raccoon giraffe_face zebra_face gorilla"
)
NOT_ANIMALS = ANIMAL_FACES | {"pig_nose", "feet", "bat"}
NOT_VEHICLES = words(
    "station metro busstop traffic_light vertical_traffic_light construction rotating_light wheel "
    "octagonal_sign oil_drum motorway railway_track skateboard roller_skate fuelpump "
    "mountain_railway bullettrain_front train2 motorized_wheelchair manual_wheelchair"
)


@dataclass(frozen=True, kw_only=True)
class ClassSpec:
    """One class: the emoji subcategories it merges and what narrows them."""

    name: str
    subcategories: tuple[str, ...]
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    startswith: str = ""
    skin_tones: bool = False
    flip: bool = False

    def accepts(self, emoji: dict[str, Any]) -> bool:
        """Whether an emoji belongs to the class.

        Args:
            emoji: an entry of `emoji.json`.

        Returns:
            True where its subcategory and its names are the class's.
        """
        return self.admits(emoji["subcategory"], {emoji["short_name"], emoji["name"]})

    def admits(self, subcategory: str, names: Set[str]) -> bool:
        """Whether an emoji of this subcategory and these names belongs to the class.

        Args:
            subcategory: spelled as those of the class.
            names: all of the emoji's, spelled as those of the class.

        Returns:
            True where the class merges the subcategory and accepts the names.
        """
        wanted = not self.only or bool(self.only & names)
        named = any(name.startswith(self.startswith) for name in names)
        return subcategory in self.subcategories and wanted and named and not self.without & names


MOONS = words(
    "new_moon waxing_crescent_moon first_quarter_moon moon full_moon waning_gibbous_moon "
    "last_quarter_moon waning_crescent_moon crescent_moon new_moon_with_face "
    "first_quarter_moon_with_face last_quarter_moon_with_face full_moon_with_face"
)
CLOCKS = frozenset(f"clock{hour}{half}" for hour in range(1, 13) for half in ("", "30"))
HANDS = ("hand-single-finger", "hand-fingers-closed", "hand-fingers-open", "hand-fingers-partial")

CLASSES: tuple[ClassSpec, ...] = (
    ClassSpec(
        name="smiling face",
        flip=True,
        subcategories=("face-smiling", "face-affection", "face-tongue", "face-glasses", "face-hat"),
    ),
    ClassSpec(
        name="troubled face",
        flip=True,
        subcategories=("face-concerned", "face-unwell", "face-sleepy", "face-neutral-skeptical"),
    ),
    ClassSpec(
        name="animal face",
        flip=True,
        subcategories=("cat-face", "monkey-face", "animal-mammal"),
        only=ANIMAL_FACES
        | words(
            "smiley_cat smile_cat joy_cat heart_eyes_cat smirk_cat kissing_cat scream_cat "
            "crying_cat_face pouting_cat see_no_evil hear_no_evil speak_no_evil"
        ),
    ),
    ClassSpec(name="person", subcategories=("person",), skin_tones=True, flip=True),
    ClassSpec(name="worker", subcategories=("person-role",), skin_tones=True, flip=True),
    ClassSpec(name="gesture", subcategories=("person-gesture",), skin_tones=True, flip=True),
    ClassSpec(name="hand", subcategories=HANDS, skin_tones=True, flip=True),
    ClassSpec(name="family sign", subcategories=("family",), startswith="FAMILY"),
    ClassSpec(name="heart", subcategories=("heart",), flip=True),
    ClassSpec(name="clock", subcategories=("time",), only=CLOCKS),
    ClassSpec(name="flag", subcategories=("country-flag",)),
    ClassSpec(name="letter tile", subcategories=("alphanum", "keycap", "transport-sign")),
    ClassSpec(name="symbol tile", subcategories=("zodiac", "religion")),
    ClassSpec(name="arrow tile", subcategories=("arrow", "av-symbol")),
    ClassSpec(name="moon", subcategories=("sky & weather",), only=MOONS),
    ClassSpec(name="shape", subcategories=("geometric",), flip=True),
    ClassSpec(name="animal", subcategories=("animal-mammal",), without=NOT_ANIMALS),
    ClassSpec(name="bird", subcategories=("animal-bird",)),
    ClassSpec(name="vehicle", subcategories=("transport-ground",), without=NOT_VEHICLES),
    ClassSpec(name="fruit", subcategories=("food-fruit", "food-vegetable"), flip=True),
    ClassSpec(name="house", subcategories=("place-building",)),
    ClassSpec(name="flower", subcategories=("plant-flower", "plant-other"), flip=True),
)
