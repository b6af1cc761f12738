"""Every sentence that can stand in a story: the event it tells, and the ways of telling it.

The writer fills a form's slots; the judge reads a sentence back into its event and slots. Slots:

    {A} {B}        names; A is the one who acts or speaks        {S} {s}   A's name, or "He" / "he" for the last actor
    {kind}         fox                         {akind}  a shy fox
    {P}            place: pond        {inP} {InP}  by the pond   {spot}    under the bench
    {X}            thing: red kite    {aX}  a red kite           {list}    things, as a spoken list
    {nT}           amount: two shells   {n}  two   {T}  shells   {seq}     one, two, three
    {R}            refrain            {mood} {weather}   single words
"""

import re

FORMS: dict[str, tuple[str, ...]] = {
    # beginnings
    "open_one_day": (
        "One day {akind} named {A} went to the {P}.",
        "One day {A} the {kind} went to the {P}.",
        "One day {akind} named {A} sat {inP}.",
    ),
    "open_once": (
        "Once upon a time there was {akind} named {A}.",
        "Once upon a time {akind} named {A} lived {inP}.",
        "Once upon a time there was {akind} who was called {A}.",
    ),
    "open": (
        "Long ago there was {akind} named {A}.",
        "There was once {akind} named {A} who lived {inP}.",
        "On a {weather} morning {A} the {kind} went to the {P}.",
        "It was a {weather} day, and {akind} named {A} was {inP}.",
    ),
    # coming and going
    "go": ("One day {s} went to the {P}.", "One {weather} day {s} walked to the {P}.", "{S} went to the {P}."),
    "meet": ("There {s} met {akind} named {B}.", "{InP} {s} met {akind} named {B}.", "{S} met {akind} named {B}."),
    "come": (
        "Soon {akind} named {A} came by.",
        "Just then {A} the {kind} came along.",
        "Then {akind} named {A} came along.",
    ),
    "walk": ("They walked to the {P} together.", "Then they went to the {P}.", "Together they went to the {P}."),
    "place": ("It was {mood} {inP}.", "The {P} was {mood} that day.", "How {mood} it was {inP}!"),
    "sky": (
        "The sun was shining.",
        "A bird sang in a tree.",
        "Clouds sailed across the sky.",
        "A little rain began to fall.",
        "The wind was soft.",
    ),
    # talk
    "greet": ('"Hello, {B}," said {A}.', '"Good morning, {B}!" said {A}.', '"How nice to see you, {B}," said {A}.'),
    "how": ('"How are you, {B}?" asked {A}.', '"Are you well, {B}?" asked {A}.'),
    "well": ('"I am well, {B}," said {A}.', '"Very well, thank you," said {A}.', '"I am a little cold," said {A}.'),
    "thank": ('"Thank you, {B}!" said {A}.', '"How kind you are, {B}," said {A}.', '"Thank you," said {A}.'),
    "glad": ("{S} was very happy.", "{S} smiled.", "This made {A} happy."),
    "sad": ("{S} was sad.", "This made {A} sad.", "{S} sighed."),
    # things that change hands
    "have": ("{S} had {aX}.", "{S} was carrying {aX}.", "{S} had brought {aX}.", "That day {s} had {aX}."),
    "like": ("{S} liked the {X} very much.", "{S} was proud of the {X}.", "{S} kept the {X} close."),
    "ask": (
        '"May I have the {X}, {B}?" asked {A}.',
        '"{B}, will you give me the {X}?" asked {A}.',
        '"What a fine {X}! May I have it, {B}?" asked {A}.',
    ),
    "yes": ('"Yes, of course," said {A}.', '"Yes, you may, {B}," said {A}.', '"Here it is, {B}," said {A}.'),
    "no": ('"No, {B}, not today," said {A}.', '"I am sorry, but no," said {A}.', '"No, I need it, {B}," said {A}.'),
    "offer": ('"Would you like the {X}, {B}?" asked {A}.', '"Do you want the {X}, {B}?" asked {A}.'),
    "accept": ('"Yes, please, {B}!" said {A}.', '"Oh yes," said {A}.', '"I would love it," said {A}.'),
    "decline": ('"No, thank you, {B}," said {A}.', '"Keep it, {B}," said {A}.'),
    "give": (
        "{S} gave the {X} to {B}.",
        "{S} handed the {X} to {B}.",
        "So {s} gave {B} the {X}.",
        "{S} let {B} have the {X}.",
    ),
    "has": ("Now {s} had the {X}.", "Now the {X} belonged to {A}.", "{S} held the {X} tight."),
    "keep": ("So {s} kept the {X}.", "And so the {X} stayed with {A}."),
    "who": ('"Who has the {X} now?" asked {A}.', '"Tell me, who has the {X}?" asked {A}.'),
    "i_have": ('"I have it," said {A}.', '"It is mine now," said {A}.'),
    "other_has": ('"{B} has it," said {A}.', '"It is with {B}," said {A}.'),
    # things that are lost
    "lose": (
        "But then {s} could not find the {X}.",
        "Oh no! {S} had lost the {X}.",
        "Suddenly the {X} of {A} was gone.",
    ),
    "look": ("{S} looked {spot}.", "Then {s} looked {spot}."),
    "not_there": ("It was not there.", "Nothing was there.", "No, it was not there."),
    "there": ("And there was the {X}!", "Yes, there was the {X}!", "The {X} was there!"),
    # counting
    "find": ("{S} found {nT} {inP}.", "{S} gathered {nT}.", "{S} had {nT} in a basket."),
    "more": ("Then {s} found {n} more.", "{S} picked up {n} more.", "After that {s} found {n} more."),
    "total": ("Now {s} had {nT}.", "In all {s} had {nT}.", "That made {nT} for {A}."),
    "aloud": ('{S} counted: "{seq}."', '"{seq}," counted {A}.'),
    "give_some": ("{S} gave {nT} to {B}.", "{S} gave {B} {nT}."),
    "drop": (
        "{S} lost {n} of the {T}.",
        "{S} dropped {n} of the {T} into the water.",
        "{S} threw away {n} of the {T}.",
    ),
    "left": ("That left {A} with {nT}.", "Then {s} had only {nT} left."),
    "how_many": ('"How many {T} do you have, {B}?" asked {A}.', '"{B}, how many {T} have you got?" asked {A}.'),
    "i_count": ('"I have {nT}," said {A}.', '"Let me see. I have {nT}," said {A}.'),
    # refrains
    "song": (
        '{S} sang a song: "{R}."',
        '{S} knew a rhyme. It went: "{R}."',
        '{S} found a note. It said: "{R}."',
        'On a stone {s} read these words: "{R}."',
    ),
    "again": (
        '{S} said it too: "{R}."',
        'Then {s} sang: "{R}."',
        '{S} liked that and sang: "{R}!"',
        'All day long {s} sang: "{R}."',
    ),
    "choir": ('They sang it together: "{R}!"', 'Together they sang: "{R}."'),
    "echo": ('The wind sang it back: "{R}."', 'Far away an echo called: "{R}."'),
    # the bag: a list that grows
    "bag": ("{S} had a bag and put in {aX}.", "{S} found an empty bag and put in {aX}."),
    "put": ("Then {s} put in {aX}.", "{S} put in {aX}."),
    "bag_holds": ("Now the bag held {list}.", "In the bag there was now {list}."),
    # endings
    "home": (
        "In the evening they went home.",
        "When the stars came out, they went home.",
        "At last they said good night.",
    ),
    "home_alone": ("In the evening {s} went home.", "When the stars came out, {s} went home."),
    "home_thing": ("At sunset {s} went home with the {X}.", "In the evening {s} took the {X} home."),
    "home_amount": ("At sunset {s} went home with {nT}.", "In the evening {s} took {nT} home."),
    "home_song": ('On the way home {s} sang once more: "{R}."', 'That night in bed {s} whispered: "{R}."'),
    "close": ("The end.", "It had been a good day.", "And so the day ended."),
    "close_friends": ("And {A} and {B} were friends from that day on.", "From then on {A} and {B} were good friends."),
    "close_story": ("And that is the story of {A} the {kind}.", "That was the day of {A} and the {X}."),
}

OPENINGS = ("open_one_day", "open_once", "open")
CLOSINGS = ("close", "close_friends", "close_story")

_NAME = r"[A-Z]\w+"
_PATTERNS = {
    **dict.fromkeys(("A", "B", "S"), _NAME),
    "s": rf"{_NAME}|he|she",
    **dict.fromkeys(("kind", "P", "n", "T", "mood", "weather"), r"\w+"),
    **dict.fromkeys(("X", "nT"), r"\w+ \w+"),
    **dict.fromkeys(("akind", "aX"), r"an? \w+ \w+"),
    **dict.fromkeys(("inP", "InP"), r"\w+ the \w+"),
    "spot": r"[a-z ]+",
    **dict.fromkeys(("list", "seq"), r"[\w, ]+"),
    "R": r'[^"\n]+?',
}


def slots(form: str) -> tuple[str, ...]:
    """The names of the slots of a form, in order of appearance."""
    return tuple(re.findall(r"{(\w+)}", form))


def _compile(form: str) -> re.Pattern[str]:
    pattern, seen = re.escape(form).replace(r"\{", "{").replace(r"\}", "}"), set()
    for slot in slots(form):
        group = rf"(?P={slot})" if slot in seen else rf"(?P<{slot}>{_PATTERNS[slot]})"
        pattern = pattern.replace("{" + slot + "}", group, 1)
        seen.add(slot)
    return re.compile(pattern)


_COMPILED = [(event, _compile(form)) for event, forms in FORMS.items() for form in forms]


def readings(text: str, start: int = 0) -> list[tuple[str, dict[str, str], int]]:
    """Every way to read the sentence that begins at ``start``: (event, slot values, end), the longest first."""
    found = [(event, m.groupdict(), m.end()) for event, p in _COMPILED if (m := p.match(text, start))]
    return sorted(found, key=lambda reading: -reading[2])
