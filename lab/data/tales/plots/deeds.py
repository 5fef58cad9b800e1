"""Plots about deeds: promised, traveled, learned, weathered, cared for and built."""

from lab.data.tales.choices import Teller
from lab.data.tales.lexicon import Word, an, listed, people, places, things, words
from lab.data.tales.scenes import (
    SIGHTS,
    TALK,
    another,
    busy_neighbor,
    cloth,
    day,
    fancies,
    foods,
    interlude,
    neighbor,
    outing,
    pronoun,
    roles,
    several,
    speak,
    treasure,
    trifles,
)

PROMISED = listed("""
    A promise is a promise, Work is light when two friends share it, Keep your word and sleep well,
    First the work and then the games, Better late than never, Helping hands are always welcome
""")
TRAVELED = listed("""
    Every road is shorter with a friend, Step by step you reach the mountain, A heavy load is light for two,
    The best part of a trip is the company, Slow feet arrive too, Brave hearts find a way
""")
LEARNED = listed("""
    Practice makes perfect, Nobody is born a master, Every mistake teaches something, Try again and again,
    A good teacher is a patient friend, Falling down is part of learning
""")
WEATHERED = listed("""
    After every storm the sun returns, A little rain never hurt anyone, A roof and a friend are enough,
    Bad weather makes good stories, Dry socks are a wonderful thing, There is no need to fear thunder
""")
CARED = listed("""
    Small friends need help too, Every child needs a home, Kindness needs no words, Be gentle with the weak,
    The smallest heart can be thankful, Help comes to those who help
""")
BUILT = listed("""
    Many hands make light work, Plan first and build later, What you build yourself is yours forever,
    Good things take time, Two heads are better than one, Nothing is useless in clever hands
""")


def promise(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    outing(tell, a, b)
    x, y = roles(tell, a, b)
    person, introduction = neighbor(tell)
    chore, deadline = tell.pick(words.CHORES), tell.pick(words.DEADLINES)
    tell.say(tell.form(f"{x} had promised {introduction}, to {chore} before {deadline}.",
                       f"Before {deadline}, {x} had to {chore} for {introduction}."))
    plan = tell.pick(words.TEMPTATIONS)
    line = tell.form(f"Come and {plan} with me first, {x}", f"First we can {plan}, {x}", f"Let us {plan} now, {x}")
    speak(tell, y, line, words.GLADLY, ("name", x, y))
    interlude(tell, a, b)

    tell.paragraph()
    sadly = tell.pick(words.SADLY)
    tell.say(tell.form(f'Suddenly {x} stopped. "I promised to {chore}!" {x.he} cried {sadly}.',
                       f'Then {x} stood still. "I forgot to {chore}!" {x.he} said {sadly}.'), pronoun(x))
    speak(tell, y, tell.form(f"I will help you, {x}", f"Let us run, {x}", f"We can still do it, {x}"),
          words.KINDLY, ("name", x, y))
    landmark, number, food = tell.pick(places.LANDMARKS), tell.pick(words.NUMBERS), tell.pick(things.PLURAL_FOODS)
    tell.say(tell.form(f"They ran past the {landmark} and arrived just before {deadline}.",
                       f"They took the path by the {landmark} and were there before {deadline}."))
    tell.say(f"It took them {number} minutes to {chore}.")
    carrier = tell.pick(things.CARRIERS)
    holder, other = roles(tell, a, b)
    tell.say(f"{person} felt {tell.pick(words.HAPPY)}.")
    tell.say(f"{person.He} thanked them {tell.pick(words.KINDLY)} and gave {holder} a {carrier} of {food}.",
             pronoun(person, "He"))
    tell.say(f"On the way home, the {carrier} was in the arms of {holder}.", ("holder", holder, other))
    speak(tell, holder, tell.form(f"Take the first one, {other}", f"Try one, {other}", f"Help yourself, {other}"),
          words.GLADLY, ("name", other, holder))
    return PROMISED


def journey(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    tell.paragraph()
    relative, address = tell.pick(people.RELATIVES), tell.pick(places.ADDRESSES)
    x, _ = roles(tell, a, b)
    carrier, present, going = tell.pick(things.CARRIERS), foods(tell, 2), tell.pick(words.GOING)
    trait = tell.pick(people.TRAITS)
    tell.say(f"{day(tell)}, they {going} to see {x}'s {trait} {relative}, who lived {address}.")
    first, second = roles(tell, a, b)
    tell.say(tell.form(f"They took {present} in a {carrier}, and {first} carried it.",
                       f"They packed {present} into a {carrier}, and {first} took it."))
    interlude(tell, a, b, TALK)

    tell.paragraph()
    start, hurdle, sad = tell.pick(places.LANDMARKS), tell.pick(places.HURDLES), tell.pick(words.SAD)
    tell.say(tell.form(f"Behind the {start} they came to {hurdle}.", f"Not far from the {start} was {hurdle}."))
    afraid, brave = roles(tell, a, b)
    tell.say(f"{afraid} felt {sad}, but {brave} smiled.", ("name", brave, afraid))
    line = f"We can do it by {tell.pick(places.WAYS)}, {afraid}"
    speak(tell, brave, line, words.KINDLY, ("name", afraid, brave))
    tell.say(tell.form("It worked!", "And so they did.", "That helped.", "It was not hard at all."))
    holder, other = first, second
    landmark = tell.pick(places.LANDMARKS, start)
    if tell.pick((True, False)):
        holder, other = second, first
        tell.say(tell.form(f"At the {landmark}, {first} gave the {carrier} to {second}.",
                           f"By the {landmark}, {first} let {second} have the {carrier}."))
    else:
        tell.say(f"At the {landmark}, they found {trifles(tell, 2)}.")
    interlude(tell, a, b, SIGHTS)
    tell.say(f"When they arrived, the {carrier} was in the arms of {holder}.", ("holder", holder, other))
    tell.say(f"The house stood {address}, just as {x} had said.",
             ("place", address, another(places.ADDRESSES, address)))
    line = tell.form("What a surprise!", "How good to see you!", "Come in, both of you!")
    speak(tell, f"{x.his} {relative}", line, words.GLADLY)
    tell.say(f"Then they ate, and they were all {tell.pick(words.HAPPY)}.")
    return TRAVELED


def learning(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    tell.paragraph()
    x, y = roles(tell, a, b)
    skill, prize = tell.pick(things.SKILLS), treasure(tell)
    tell.say(f"{day(tell)}, {x} wanted to learn how to {skill}.")
    tell.say(tell.form(f"{y} already knew how to do it and came to help.",
                       f"{y} could do it very well and offered to help."), ("name", y, x))
    tell.say(tell.form(f"{y} had brought {an(prize.full)} as a prize.",
                       f"The prize that {y} had chosen was {an(prize.full)}."))
    interlude(tell, a, b, TALK)

    tell.paragraph()
    fail = tell.pick(skill.fails)
    tell.say(f"The first time, {x} {fail}.")
    tell.say(f"The second time, {x.he} {tell.pick(skill.fails, fail)}.", pronoun(x))
    speak(tell, x, f"I will never learn to {skill}", words.SADLY)
    tip = tell.pick(things.TIPS)
    speak(tell, y, f"{tip}, {x}", words.KINDLY, ("name", x, y))
    if tell.pick((True, False)):
        person, introduction = busy_neighbor(tell)
        tell.say(f"Even {introduction}, stopped to watch.")
        speak(tell, person, tell.pick(things.TIPS, tip), words.KINDLY)
    tell.say(f"So {x} tried {tell.pick(words.NUMBERS)} more times.")
    interlude(tell, a, b, SIGHTS)
    tell.say(f"At last {x} {skill.success}!")
    speak(tell, y, tell.form(f"You did it, {x}!", f"Well done, {x}!", f"I am proud of you, {x}"), words.GLADLY,
          ("name", x, y))
    tell.say(f"Then {y} handed over the {prize.name}, and both felt {tell.pick(words.HAPPY)}.")
    tell.say(f"Now the {prize.short} was in the hands of {x}.", ("holder", x, y))
    return LEARNED


def storm(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    owner, friend = roles(tell, a, b)
    toy = treasure(tell)
    spot, second = several(tell, place.corners, 2)
    tell.say(f"They sat down {second} to eat {foods(tell, 2)}.")
    tell.say(tell.form(f"{owner} had put {an(toy.full)} {spot}.", f"{owner} had left {an(toy.full)} {spot}."))
    interlude(tell, a, b)

    tell.paragraph()
    omen = tell.pick(words.OMENS)
    tell.say(f"Suddenly {omen}, and {tell.pick(words.OMENS, omen)}.")
    shouting, other = roles(tell, a, b)
    line = tell.form(f"Run, {other}!", f"Quick, {other}!", f"Come with me, {other}!")
    tell.say(tell.form(f'"{line}" shouted {shouting}.', f'"{line}" cried {shouting}.'), ("name", shouting, other))
    shelter, danger = tell.pick(places.SHELTERS), tell.pick(words.STORMS)
    tell.say(tell.form(f"They reached {shelter} just before {danger} began.",
                       f"They found {shelter}, and outside {danger} began."))
    speak(tell, owner, tell.form(f"I left my {toy.name} behind", f"My {toy.name} is still out there"), words.SADLY)
    tell.say(f"{owner.He} felt very {tell.pick(words.SAD)}.", pronoun(owner, "He"))
    tell.say(f"To cheer {owner.him} up, {friend} told a story about {fancies(tell, 2)}.",
             ("name", friend, owner))
    wonder, towel = tell.pick(words.WONDERS), cloth(tell)
    tell.say(tell.form(f"When the sky cleared, they saw {wonder}.", f"After the storm, there was {wonder}."))
    tell.say(f"The {toy.short} was wet, but it was still {spot}.", ("place", spot, second))
    drier, _ = roles(tell, a, b)
    tell.say(f"{drier} dried it with {towel}.")
    return WEATHERED


def rescue(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    finder, friend = roles(tell, a, b)
    spot, second = several(tell, place.corners, 2)
    young, plight = an(tell.pick(things.YOUNG)), tell.pick(things.PLIGHTS)
    tell.say(tell.form(f"After a while {finder} found {young} {spot}.", f"There {finder} saw {young} {spot}."))
    tell.say(f"It was {plight} and {tell.pick(things.PLIGHTS, plight)}.")
    greeting = tell.form("You poor thing", "Do not be afraid", "Hello there", "Come to me")
    tell.say(f'"{greeting}," {finder.he} said {tell.pick(words.KINDLY)}.', pronoun(finder))

    tell.paragraph()
    name, wrap = tell.pick(things.PET_NAMES), cloth(tell)
    holder, other = roles(tell, a, b)
    tell.say(f"{friend} wanted to call it {name}.")
    tell.say(f"{holder} wrapped {name} in {wrap} and took it in {holder.his} arms.", pronoun(holder, "his"))
    person, introduction = busy_neighbor(tell)
    tell.say(tell.form(f"Then they met {introduction}.", f"They asked {introduction}."))
    tell.say(f'"I saw its mother {second}," {person.he} said {tell.pick(words.KINDLY)}.', pronoun(person))
    interlude(tell, a, b)
    tell.say(tell.form(f"All this time, {name} was in the arms of {holder}.",
                       f"The whole way, {name} lay in the arms of {holder}."), ("holder", holder, other))
    tell.say(f"The mother was waiting {second}, and {holder} set {name} down.", ("place", second, spot))
    speak(tell, other, f"Goodbye, {name}", words.SADLY)
    tell.say(f"But both felt {tell.pick(words.HAPPY)}.")
    return CARED


def building(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    project, title, color = tell.pick(things.PROJECTS), tell.pick(things.PROJECT_NAMES), tell.pick(things.COLORS)
    x, y = roles(tell, a, b)
    spot, second, third = several(tell, place.corners, 3)
    first = tell.pick(things.MATERIALS)
    other = tell.pick(things.MATERIALS, first)
    tell.say(tell.form(f"They wanted to build {an(project)} {third}.",
                       f"Their plan was to build {an(project)} {third}."))
    many, more = tell.pick(words.NUMBERS), tell.pick(words.NUMBERS)
    look = tell.pick(things.WORN)
    tell.say(f"{x} brought {many} {look} {first}, and {y} brought {more} {tell.pick(things.WORN, look)} {other}.")
    tell.say(f"They put the {first} {spot} and the {other} {second}.")
    interlude(tell, a, b)

    tell.paragraph()
    worried, calm = roles(tell, a, b)
    speak(tell, worried, tell.form("It keeps falling apart", "It is too weak", "It will never work"), words.SADLY)
    bringer, helper, material, store, wrong = tell.pick(((x, y, first, spot, second),
                                                         (y, x, other, second, spot)))
    speak(tell, calm, f"We need more {material}, {worried}", words.KINDLY, ("name", worried, calm))
    tell.say(f"The rest of the {material} lay {store}.", ("place", store, wrong))
    if tell.pick((True, False)):
        person, introduction = busy_neighbor(tell)
        tell.say(f"Even {introduction}, came to help, and {person.he} was {tell.pick(words.HAPPY)}.",
                 pronoun(person))
    deadline = tell.pick(words.DEADLINES)
    tell.say(tell.form(f"They worked until {deadline} and painted the {project} {color}.",
                       f"By {deadline} the {project} was {color} and ready."))
    speak(tell, helper, tell.form(f"Your {material} saved us, {bringer}", f"Your {material} are great, {bringer}"),
          words.GLADLY, ("name", bringer, helper))
    tell.say(f"They named it the {title}, and it looked {tell.pick(words.FINE)} {third}.")
    return BUILT
