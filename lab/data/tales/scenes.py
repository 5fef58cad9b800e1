"""The scenes that the plots share: how a tale opens, where the friends go, what they see, how it ends."""

from typing import NamedTuple

from lab.data.tales.choices import Teller, Weighted
from lab.data.tales.lexicon import Word, an, people, places, things, words

DAYTIMES = Weighted({"morning": 3, "afternoon": 2})
ENDS = {"?": "asked", "!": "cried"}
GIRL, BOY = (next(child for child in people.CHILDREN if child.child == kind) for kind in ("girl", "boy"))


class Thing(NamedTuple):
    """A treasure by its full, its short and its plain name: "little red kite", "red kite", "kite"."""

    full: str
    short: str
    name: str


# Pieces of a sentence

def roles(tell: Teller, a: Word, b: Word) -> tuple[Word, Word]:
    """The two friends in either order, so that being named first says nothing about the part one plays."""
    return tell.pick(((a, b), (b, a)))


def treasure(tell: Teller, *used: str) -> Thing:
    quality, color = tell.pick(things.QUALITIES), tell.pick(things.COLORS)
    name = tell.pick(things.TREASURES, *used)
    return Thing(f"{quality} {color} {name}", f"{color} {name}", name)


def several(tell: Teller, options: tuple[str, ...], count: int) -> list[str]:
    """So many different options."""
    chosen = []
    for _ in range(count):
        chosen.append(tell.pick(options, *chosen))
    return chosen


def enumeration(items: list[str]) -> str:
    """The items with commas, and "and" before the last."""
    return " and ".join(items) if len(items) < 3 else f"{', '.join(items[:-1])}, and {items[-1]}"


def pairs(tell: Teller, qualities: tuple[str, ...], names: tuple[str, ...], count: int) -> str:
    """Different things, each with a quality of its own: "a muddy spoon and an old sock"."""
    chosen, named = several(tell, qualities, count), several(tell, names, count)
    return enumeration([an(f"{quality} {name}") for quality, name in zip(chosen, named)])


def foods(tell: Teller, count: int) -> str:
    """Different things to eat: "some plums and a lemon tart"."""
    return enumeration(several(tell, things.FOODS, count))


def fancies(tell: Teller, count: int) -> str:
    """Creatures out of dreams and songs: "a sleepy dragon"."""
    return pairs(tell, words.FANCIES, words.CREATURES, count)


def trifles(tell: Teller, count: int) -> str:
    """Things that nobody looks for: "a muddy spoon"."""
    return pairs(tell, things.WORN, things.FINDS, count)


def day(tell: Teller) -> str:
    """When it happened, as the beginning of a sentence."""
    when = f"{tell.pick(words.WEEKDAYS)} {tell.pick(DAYTIMES)} in {tell.pick(words.MONTHS)}"
    return f"One {tell.pick(words.WEATHERS)} {when}"


def neighbor(tell: Teller) -> tuple[Word, str]:
    """A grown-up, and the words that introduce them: "Mrs. Hill, the merry baker"."""
    person = tell.pick(people.NEIGHBORS)
    return person, f"{person}, the {tell.pick(people.TRAITS)} {tell.pick(people.JOBS)}"


def busy_neighbor(tell: Teller) -> tuple[Word, str]:
    """A grown-up who is doing something: "Mrs. Hill, the merry baker, who was sorting letters"."""
    person, introduction = neighbor(tell)
    return person, f"{introduction}, who was {tell.pick(people.ERRANDS)}"


def home(tell: Teller) -> str:
    return f"{an(tell.pick(things.COLORS))} {tell.pick(places.DWELLINGS)} {tell.pick(places.ADDRESSES)}"


def clothing(tell: Teller) -> str:
    return an(f"{tell.pick(things.QUALITIES)} {tell.pick(things.COLORS)} {tell.pick(people.GARMENTS)}")


def cloth(tell: Teller) -> str:
    return an(f"{tell.pick(things.WORN)} {tell.pick(things.COLORS)} {tell.pick(things.WRAPS)}")


def pronoun(person: Word, case: str = "he") -> tuple[str, str, str]:
    """The probe that asks for a person's pronoun; the case is one of "he", "him", "his", "He", "His"."""
    opposite = BOY if person.he == "she" else GIRL
    return ("pronoun", getattr(person, case), getattr(opposite, case))


def another(options: tuple[str, ...], right: str) -> str:
    """A wrong answer out of the same list, for a probe."""
    return options[options.index(right) - 1]


# Whole sentences

def speak(tell: Teller, speaker: str, line: str, manner: tuple[str, ...], *probes: tuple[str, str, str]):
    """Somebody says a line in some manner, with the speaker after or before it."""
    adverb = tell.pick(manner)
    verb = ENDS.get(line[-1], "said")
    inner, outer = (line, line) if line[-1] in ENDS else (f"{line},", f"{line}.")
    tell.say(tell.form(f'"{inner}" {speaker} {verb} {adverb}.',
                       f'"{inner}" {verb} {speaker} {adverb}.',
                       f'{speaker[0].upper()}{speaker[1:]} {verb} {adverb}, "{outer}"'), *probes)


def address(tell: Teller, speaker: Word, listener: Word, line: str, manner: tuple[str, ...]):
    """A line from one friend to the other; of the two names the second follows from the first."""
    adverb = tell.pick(manner)
    if tell.pick((True, False)):
        tell.say(f'"{line}, {listener}," said {speaker} {adverb}.', ("name", speaker, listener))
    else:
        tell.say(f'{speaker} said {adverb}, "{line}, {listener}."', ("name", listener, speaker))


def thanks(tell: Teller, speaker: Word, giver: Word):
    line = tell.form(f"Thank you, {giver}", f"Thank you so much, {giver}", f"That is so kind of you, {giver}")
    speak(tell, speaker, line, words.GLADLY, ("name", giver, speaker))


# Scenes

def opening(tell: Teller) -> tuple[Word, Word]:
    """Who the tale is about: two friends."""
    a = tell.pick(people.CHILDREN)
    b = tell.pick(people.CHILDREN, a)
    tell.pick((at_home, two_hobbies, once_there_was, next_door))(tell, a, b)
    return a, b


def at_home(tell: Teller, a: Word, b: Word):
    tell.say(f"{a} was {an(tell.pick(people.TRAITS))} {a.child} who lived in {home(tell)}.")
    garment = clothing(tell)
    tell.say(tell.form(f"{a.His} best friend {b} always wore {garment}.",
                       f"{a.His} friend {b} had {garment}."), pronoun(a, "His"))


def two_hobbies(tell: Teller, a: Word, b: Word):
    tell.say(tell.form(f"{a} and {b} were best friends.", f"{a} and {b} were in the same class.",
                       f"{a} lived next door to {b}.", f"{a} knew {b} from school."))
    first, trait = tell.pick(people.HOBBIES), tell.pick(people.TRAITS)
    second, other = tell.pick(people.HOBBIES, first), tell.pick(people.TRAITS, trait)
    tell.say(f"{a} was {trait} and loved {first}, but {b} was {other} and liked {second}.")


def once_there_was(tell: Teller, a: Word, b: Word):
    first, second = tell.pick(people.TRAITS), tell.pick(people.HOBBIES)
    garment = clothing(tell)
    tell.say(f"Once there was {an(first)} {a.child} named {a}, who always wore {garment}.")
    tell.say(f"{a.He} liked {second} with {a.his} {tell.pick(people.TRAITS, first)} friend {b}.", pronoun(a, "He"))


def next_door(tell: Teller, a: Word, b: Word):
    trait = tell.pick(people.TRAITS)
    tell.say(f"In {home(tell)} lived {an(trait)} {a.child} named {a}.")
    other = tell.pick(people.TRAITS, trait)
    tell.say(f"Next door lived {b}, who was {other} and loved {tell.pick(people.HOBBIES)}.")


def outing(tell: Teller, a: Word, b: Word) -> Word:
    """The friends go to a place, which is returned."""
    tell.paragraph()
    when, going, place = day(tell), tell.pick(words.GOING), tell.pick(places.PLACES)
    tell.say(tell.form(f"{when}, {a} and {b} {going} to the {place}.", f"{when}, they {going} to the {place}."))
    tell.pick(DETAILS)(tell, a, b)
    return place


def senses(tell: Teller, a: Word, b: Word):
    smell = tell.pick(words.SMELLS)
    second, sound = tell.pick(words.SMELLS, smell), tell.pick(words.SOUNDS)
    tell.say(tell.form(f"The air smelled of {smell} and {second}, and {sound}.",
                       f"There was a smell of {smell} and {second}, and {sound}."))


def provisions(tell: Teller, a: Word, b: Word):
    carrier, meal, drink = tell.pick(things.CARRIERS), foods(tell, 3), tell.pick(things.DRINKS)
    tell.say(tell.form(f"Their {carrier} was full: {meal}, with {drink}.",
                       f"For lunch they had {meal}, with {drink}, in a {carrier}."))


def bags(tell: Teller, a: Word, b: Word):
    x, y = roles(tell, a, b)
    tell.say(f"{x} had {trifles(tell, 2)} in {x.his} bag, and {y} had {trifles(tell, 2)}.")


DETAILS = Weighted({senses: 1, provisions: 2, bags: 2})


def interlude(tell: Teller, a: Word, b: Word, kinds: Weighted | None = None):
    """A little scene that changes nothing in the plot."""
    tell.pick(kinds or ANYTHING)(tell, *roles(tell, a, b))


def snack(tell: Teller, x: Word, y: Word):
    food, taste = tell.pick(things.FOODS), tell.pick(things.TASTES)
    tell.say(tell.form(f"{x} shared {food} with {y}, and {food.it} {food.was} {taste}.",
                       f"{x} gave {y} {food} to taste, and {food.it} {food.was} {taste}."),
             ("pronoun", food.it, food.other))


def song(tell: Teller, x: Word, y: Word):
    about = fancies(tell, 2)
    tell.say(tell.form(f"{x} sang a song about {about}, and {y} clapped.",
                       f"{x} made up a rhyme about {about}, and {y} laughed.",
                       f"{x} drew {about} in the sand for {y}."))


def fable(tell: Teller, x: Word, y: Word):
    about, found = fancies(tell, 1), trifles(tell, 2)
    tell.say(tell.form(f"{x} told {y} about {about} with {found}.",
                       f"{x} told {y} a joke about {about} that swallowed {found}.",
                       f"{x} asked {y} a riddle about {about} that owned {found}."))


def parade(tell: Teller, x: Word, y: Word):
    seen = trifles(tell, 3)
    tell.say(tell.form(f"{x} told {y} what {x.he} had seen on the road: {seen}.",
                       f"{x} asked {y} to guess the price of {seen}.",
                       f"{x} and {y} passed a shop window with {seen}."))


def animal(tell: Teller, x: Word, y: Word):
    seen = an(f"{tell.pick(things.LOOKS)} {tell.pick(things.ANIMALS)}")
    tell.say(tell.form(f'"Look, {y}, {seen}!" cried {x}.', f'"Look, {y}, {seen}!" whispered {x}.',
                       f'"Be quiet, {y}, there is {seen}," said {x}.'), ("name", x, y))
    tell.say(f"It was {tell.pick(things.ANIMAL_DOINGS)}.")


def counting(tell: Teller, x: Word, y: Word):
    first, many = tell.pick(words.COUNTED), tell.pick(words.NUMBERS)
    second, more = tell.pick(words.COUNTED, first), tell.pick(words.NUMBERS)
    tell.say(f"{x} counted {many} {first}, and {y} counted {more} {second}.")


def clouds(tell: Teller, x: Word, y: Word):
    seen = fancies(tell, 3)
    tell.say(tell.form(f"{x} showed {y} clouds that looked like {seen}.",
                       f"{x} and {y} saw clouds that looked like {seen}."))


TALK = Weighted({song: 1, fable: 1, parade: 1, clouds: 1})
SIGHTS = Weighted({snack: 1, animal: 1, counting: 1})
ANYTHING = Weighted({song: 2, fable: 2, parade: 2, clouds: 2, snack: 2, animal: 1, counting: 1})


def ending(tell: Teller, a: Word, b: Word, morals: tuple[str, ...]):
    """The feeling that remains, what somebody says to it, what one of the friends dreams."""
    tell.paragraph()
    x, y = roles(tell, a, b)
    tell.pick((told_at_home, dreamed, parted))(tell, x, y, tell.pick(morals))


def told_at_home(tell: Teller, x: Word, y: Word, moral: str):
    relative, trait = tell.pick(people.RELATIVES), tell.pick(people.TRAITS)
    tell.say(tell.form(f"That evening {x} told {x.his} {trait} {relative} about {y} and the whole day.",
                       f"At bedtime {x} told {x.his} {trait} {relative} what had happened with {y}.",
                       f"In the evening {x} told {x.his} {trait} {relative} all about {y}."), ("name", y, x))
    speak(tell, f"{x.his} {relative}", moral, words.KINDLY)
    tell.say(f"{x.His} {relative} gave {x.him} {tell.pick(words.COMFORTS)} and {tell.pick(words.HUGS)}.",
             pronoun(x, "him"))


def dreamed(tell: Teller, x: Word, y: Word, moral: str):
    sleep, dream = tell.pick(words.SLEEPS), fancies(tell, 2)
    tell.say(tell.form(f"That night {x} slept {sleep} and dreamed of {dream}.",
                       f"In bed {x} slept {sleep}, and in {x.his} dream {x.he} met {dream}.",
                       f"At night {x} slept {sleep} and dreamed that {y} became friends with {dream}."))
    tell.say(f'"{moral}," {x.he} mumbled in {x.his} sleep.', pronoun(x))


def parted(tell: Teller, x: Word, y: Word, moral: str):
    landmark, happy = tell.pick(places.LANDMARKS), tell.pick(words.HAPPY)
    tell.say(tell.form(f"They said goodbye at the {landmark}, and both felt {happy}.",
                       f"When they parted at the {landmark}, they felt {happy}.",
                       f"Later they walked past the {landmark}, and both felt {happy}."))
    address(tell, x, y, moral, words.KINDLY)
