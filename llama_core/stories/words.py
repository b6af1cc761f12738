"""The vocabulary of the stories: who, where, what. The writer (`text`) and the judge (`rules`) read the same lists."""

# Who comes first, second and third into a story. The three have no name in common, so that nobody meets a namesake.
FIRST_GIRLS, FIRST_BOYS = ("Mira", "Lily", "Nora", "Zoé"), ("Tom", "Finn", "Max", "Kai")
SECOND_GIRLS, SECOND_BOYS = ("Anna", "Rosa", "Maya", "Léa"), ("Ben", "Omar", "Hugo", "René")
THIRD_GIRLS, THIRD_BOYS = ("Ida", "Hana", "Clara", "Freya"), ("Otto", "Sam", "Ravi", "Noël")
GIRLS = FIRST_GIRLS + SECOND_GIRLS + THIRD_GIRLS
BOYS = FIRST_BOYS + SECOND_BOYS + THIRD_BOYS
NAMES = GIRLS + BOYS
CAST = (FIRST_GIRLS + FIRST_BOYS, SECOND_GIRLS + SECOND_BOYS, THIRD_GIRLS + THIRD_BOYS)
ANIMALS = ("fox", "bear", "mouse", "owl", "rabbit", "frog", "hedgehog", "cat", "goat", "duck", "otter", "badger")
KINDS = (*ANIMALS, "girl", "boy")
TRAITS = (
    *("small", "kind", "brave", "shy", "quiet", "merry", "clever", "curious", "sleepy", "gentle", "old", "young"),
    *("friendly", "busy", "patient"),
)

# Each place with the preposition it takes: "by the pond".
PLACES = {
    **dict.fromkeys(("pond", "river", "lake", "well", "sea"), "by"),
    **dict.fromkeys(("beach", "hill", "bridge", "island"), "on"),
    **dict.fromkeys(("forest", "garden", "meadow", "orchard", "barn", "valley", "cave"), "in"),
    **dict.fromkeys(("market", "mill", "harbour", "station"), "at"),
}
MOODS = ("quiet", "cold", "green", "sunny", "windy", "lovely", "dark", "warm", "busy", "still")
WEATHERS = ("sunny", "rainy", "windy", "cold", "warm", "bright", "snowy", "foggy")

LOOKS = (
    *("red", "blue", "green", "yellow", "white", "black", "silver", "golden", "old", "tiny", "wooden", "striped"),
    *("orange", "heavy"),
)
# What somebody carries and may give away, and what is put into a bag.
CARRIED = ("kite", "drum", "ball", "hat", "lamp", "book", "boat", "flute", "basket", "clock", "umbrella")
PACKED = ("key", "cup", "bell", "scarf", "coin", "spoon", "map", "box", "whistle", "ring")
OBJECTS = CARRIED + PACKED
SPOTS = (
    *("under the bench", "behind the tree", "in the tall grass", "between the stones", "under a leaf", "in the mud"),
    *("behind the door", "under the stairs", "inside an old boot", "on the roof", "beside the fence", "in the hay"),
)

# Things that are counted: plural -> singular.
COUNTED = {
    **{noun + "s": noun for noun in ("apple", "pear", "shell", "nut", "stone", "egg", "flower", "plum", "acorn")},
    **{"berries": "berry", "leaves": "leaf", "cookies": "cookie", "feathers": "feather"},
}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# A refrain is a random choice and order of these: nothing but a look back at the first time can tell how it goes on.
SONG_WORDS = (
    *("la", "lum", "tiri", "bom", "dilly", "hey", "ho", "tra", "ding", "dong", "pim", "rum", "fiddle", "zum", "oh"),
    *("moon", "star", "rain", "snow", "tin", "bread", "honey", "salt", "wind", "gold", "home", "river", "apple", "sky"),
    *("sing", "dance", "jump", "run", "blow", "shine", "sleep", "wake", "turn", "fly", "up", "down", "far", "near"),
    *("round", "softly", "never", "always", "seven", "little", "silver", "over", "under", "away", "again", "summer"),
)


def with_article(phrase: str) -> str:
    """The phrase behind its indefinite article: "a kite", "an old kite"."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def amount(number: int, plural: str) -> str:
    """A number of counted things in words: "one shell", "four shells"."""
    return f"{NUMBERS[number - 1]} {COUNTED[plural] if number == 1 else plural}"


def enumerate_words(items: list[str]) -> str:
    """A spoken list: "a pear", "a pear and a cup", "a pear, a cup and a hat"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
