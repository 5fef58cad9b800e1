"""Plots about things: lost, shared, broken, hidden, swapped and won."""

from lab.data.tales.choices import Teller
from lab.data.tales.lexicon import Word, an, listed, people, places, things, words
from lab.data.tales.scenes import (
    SIGHTS,
    TALK,
    address,
    busy_neighbor,
    day,
    interlude,
    neighbor,
    outing,
    pronoun,
    roles,
    several,
    speak,
    thanks,
    treasure,
    trifles,
)

LOST = listed("""
    Two pairs of eyes see more than one, What is lost can be found again, Look where you last played,
    A good friend is the best thing to find, Never give up too early, Take care of your things
""")
SHARED = listed("""
    Fun is twice as big when two share it, Everyone gets a turn, Waiting is easier with a friend,
    A shared toy is a better toy, Those who share have more, It is better to take turns than to fight
""")
MENDED = listed("""
    The truth mends more than glue, Everyone breaks something sometimes, It takes courage to say sorry,
    Repairing is better than hiding, Honest friends stay friends, A crack can be beautiful too
""")
SURPRISED = listed("""
    A secret can be a present too, Good friends never forget a birthday, The best presents are kind thoughts,
    Patience makes a surprise sweeter, Giving is as nice as getting, Waiting makes a birthday longer
""")
SWAPPED = listed("""
    Think before you trade, New is not always better, A fair swap makes two people smile,
    Things are only things but friends are friends, You only know what you miss when it is gone,
    Ask and a friend will listen
""")
WON = listed("""
    Winning is nice but friends are nicer, Someone has to come second, A good loser is a winner too,
    It is fun to take part, Practice and luck go together, Clap for others and they will clap for you
""")


def lost_and_found(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    owner, friend = roles(tell, a, b)
    toy, game = treasure(tell), tell.pick(words.GAMES)
    spot, second, third = several(tell, place.corners, 3)
    tell.say(tell.form(f"{owner} had brought {an(toy.full)}.", f"{owner} was carrying {an(toy.full)}.",
                       f"With them was {an(toy.full)} that belonged to {owner}."))
    tell.say(tell.form(f"Before they played {game}, {owner} put the {toy.name} {spot}.",
                       f"They wanted to play {game}, so {owner} left the {toy.name} {spot}.",
                       f"During a round of {game}, {owner} laid the {toy.name} {spot}."))
    interlude(tell, a, b)

    tell.paragraph()
    speak(tell, owner, tell.form(f"Where is my {toy.name}?", f"My {toy.name} is gone!"), words.SADLY)
    tell.say(f"{owner.He} felt {tell.pick(words.SAD)}.", pronoun(owner, "He"))
    comfort = tell.form(f"Do not worry, {owner}", f"Let us look for it, {owner}", f"We will find it, {owner}")
    speak(tell, friend, comfort, words.KINDLY, ("name", owner, friend))
    found = trifles(tell, 2)
    tell.say(tell.form(f"They looked {second} and {third}, but only found {found}.",
                       f"They searched {second} and {third}, but saw only {found}."))
    if tell.pick((True, False)):
        person, introduction = busy_neighbor(tell)
        tell.say(f"They asked {introduction}, but {person.he} had not seen it.", pronoun(person))
    finder, _ = roles(tell, a, b)
    tell.say(tell.form(f"Then {finder} remembered the game.", f"Then {finder} had an idea and ran back.",
                       f"Then {finder} went back to look."))
    tell.say(f"The {toy.short} was still {spot}.", ("place", spot, second))
    if finder is owner:
        speak(tell, owner, f"I am so {tell.pick(words.HAPPY)}", words.GLADLY)
    else:
        tell.say(tell.form(f"{friend} picked it up and brought it to {owner}.",
                           f"{friend} took it and gave it to {owner}."))
        thanks(tell, owner, friend)
    tell.say(f"Now the {toy.name} was safe in the hands of {owner}.", ("holder", owner, friend))
    return LOST


def turns(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    person, introduction = busy_neighbor(tell)
    toy = treasure(tell)
    tell.say(tell.form(f"They met {introduction}.", f"They greeted {introduction}."))
    tell.say(tell.form(f"{person.He} lent them {an(toy.full)}, but there was only one.",
                       f"{person.He} let them play with {an(toy.full)}, but there was only one."),
             pronoun(person, "He"))

    tell.paragraph()
    loud, other = roles(tell, a, b)
    tell.say(f'"I want the {toy.name} first!" said {loud}. "No, me first!" said {other}.')
    tell.say(f"They were both {tell.pick(words.CROSS)}.")
    wise, listener = roles(tell, a, b)
    line = tell.form("Let us take turns", "We can take turns", "We should take turns")
    address(tell, wise, listener, line, words.KINDLY)
    first, second = roles(tell, a, b)
    spot, number, counted = tell.pick(place.corners), tell.pick(words.NUMBERS), tell.pick(words.COUNTED)
    waiting = tell.form(f"{second} sat down {spot}", f"{second} waited {spot}")
    tell.say(f"So {first} took the {toy.name}, and {waiting} and counted {number} {counted}.")
    tell.say(f"Then it was the turn of {second}.", ("name", second, first))
    tell.say(f"{first} handed over the {toy.name}, and {second} felt {tell.pick(words.HAPPY)}.")
    interlude(tell, a, b)
    holder, other = second, first
    if tell.pick((True, False)):
        holder, other = first, second
        game = tell.pick(words.GAMES)
        tell.say(tell.form(f"After a round of {game} they traded places again.",
                           f"Before they played {game}, they traded places once more."))
    tell.say(f"When {person} came for the {toy.short}, it was in the hands of {holder}.", ("holder", holder, other))
    speak(tell, person, tell.form("You share so well", "You two are good friends", "You did that nicely"), words.KINDLY)
    return SHARED


def accident(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    tell.paragraph()
    guest, owner = roles(tell, a, b)
    tell.say(f"{day(tell)}, {guest} came to visit {owner}.")
    smell = tell.pick(words.HOUSE_SMELLS)
    tell.say(tell.form(f"The whole house smelled of {smell}.", f"There was a smell of {smell} in the house."))
    damage = tell.pick(things.BREAKAGES)
    thing = tell.pick(damage.things)
    quality, short = tell.pick(things.QUALITIES), f"{tell.pick(things.COLORS)} {thing}"
    relative = tell.pick(people.RELATIVES)
    spot = tell.pick(places.HOUSE_CORNERS)
    second = tell.pick(places.HOUSE_CORNERS, spot)
    tell.say(f"{owner} had {an(f'{quality} {short}')} from {owner.his} {relative}.")
    tell.say(tell.form(f"It had its place {spot}.", f"It was always kept {spot}."))
    interlude(tell, a, b)

    tell.paragraph()
    game, trip = tell.pick(words.GAMES), tell.pick(things.TRIPS)
    tell.say(tell.form(f"Then they played {game} {second}, and {guest} tripped over {trip}.",
                       f"When they played {game} {second}, {guest} stumbled over {trip}."))
    tell.say(tell.form(f"The {short} fell down and {damage}.", f"{guest.He} hit the {short}, and it {damage}."))
    line = tell.form(f"I am sorry, {owner}", f"That was my fault, {owner}", f"Please forgive me, {owner}")
    speak(tell, guest, line, words.SADLY, ("name", owner, guest))
    sad, kindly = tell.pick(words.SAD), tell.pick(words.KINDLY)
    tell.say(tell.form(f"{owner} was {sad} at first, but then {owner.he} nodded {kindly}.",
                       f"{owner} felt {sad}, but {owner.he} smiled {kindly}."), pronoun(owner))
    tool = tell.pick(damage.tools)
    helper, other = roles(tell, a, b)
    speak(tell, f"{owner.his} {relative}", tell.form("We can repair it", "That can be mended"), words.KINDLY)
    tell.say(f"{owner.His} {relative} gave {helper} {an(tool)}.", pronoun(owner, "His"))
    tell.say(f"Because {helper} held the {tool}, the {thing} was in the hands of {other}.",
             ("holder", other, helper))
    tell.say(f"Soon it was {damage.mended}, and {guest} put it back {spot}.", ("place", spot, second))
    speak(tell, owner, f"It looks {tell.pick(words.FINE)}", words.GLADLY)
    return MENDED


def surprise(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    giver, friend = roles(tell, a, b)
    tell.say(tell.form(f"It was the birthday of {friend}, but nobody had said a word about it.",
                       f"Nobody seemed to know that it was the birthday of {friend}."))
    gift, paper = treasure(tell), tell.pick(things.COLORS)
    spot, second, third = several(tell, place.corners, 3)
    person, introduction = neighbor(tell)
    tell.say(f"{giver} had wrapped a present in {paper} paper, and {introduction}, had hidden it {spot}.")

    tell.paragraph()
    sad, game = tell.pick(words.SAD), tell.pick(words.GAMES)
    tell.say(tell.form(f"{friend} sat down {second} and felt {sad}.", f"{friend} felt {sad} and sat down {second}."))
    tell.say(f'"Has everybody forgotten me?" {friend.he} asked {tell.pick(words.SADLY)}.', pronoun(friend))
    tell.say(tell.form(f'"Let us play {game} {third}," said {giver}, and {giver.he} winked at {person}.',
                       f'"Come and play {game} {third}," said {giver}, and {giver.he} nodded to {person}.'),
             pronoun(giver))
    interlude(tell, a, b)
    speak(tell, person, f"Happy birthday, {friend}!", words.GLADLY, ("name", friend, giver))
    tell.say(f"The present was waiting {spot}.", ("place", spot, second))
    tell.say(f"Under the {paper} paper was {an(gift.full)}.")
    thanks(tell, friend, giver)
    tell.say(f"The {gift.name} looked {tell.pick(words.FINE)} in the hands of {friend}.", ("holder", friend, giver))
    return SURPRISED


def swap(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    x, y = roles(tell, a, b)
    first = treasure(tell)
    second = treasure(tell, first.name)
    tell.say(tell.form(f"{x} had brought {an(first.full)}, and {y} had brought {an(second.full)}.",
                       f"{x} carried {an(first.full)}, and {y} carried {an(second.full)}."))
    interlude(tell, a, b)

    tell.paragraph()
    asking, other = roles(tell, a, b)
    spot, gladly = tell.pick(place.corners), tell.pick(words.GLADLY)
    tell.say(tell.form(f'"Shall we swap?" {asking} asked {gladly} when they sat {spot}.',
                       f'When they sat {spot}, {asking} asked {gladly}, "Shall we swap?"'))
    agreed = tell.form(f"That is a good idea, {asking}", f"Why not, {asking}?", f"Yes, let us do it, {asking}")
    speak(tell, other, agreed, words.KINDLY, ("name", asking, other))
    tell.say(f"So they swapped, and both felt {tell.pick(words.HAPPY)}.")
    owner, friend, toy = tell.pick(((x, y, first), (y, x, second)))
    tell.say(f"Now the {toy.name} was in the hands of {friend}.", ("holder", friend, owner))
    tell.say(f"They played {tell.pick(words.GAMES)} and counted {tell.pick(words.NUMBERS)} {tell.pick(words.COUNTED)}.")
    tell.say(f"After a while {owner} thought of the {toy.short} and felt {tell.pick(words.SAD)}.")
    tell.say(f'"I miss my {toy.name}," {owner.he} said {tell.pick(words.SADLY)}.', pronoun(owner))
    if tell.pick((True, False)):
        holder, other = owner, friend
        speak(tell, friend, tell.form("Then we will swap back", "Then take it back"), words.KINDLY)
        thanks(tell, owner, friend)
    else:
        holder, other = friend, owner
        tell.say(f'"May I keep it until {tell.pick(words.WEEKDAYS)}?" asked {friend}.')
        speak(tell, owner, f"Of course you may, {friend}", words.KINDLY, ("name", friend, owner))
    tell.say(f"When they went home, the {toy.short} was in the hands of {holder}.", ("holder", holder, other))
    return SWAPPED


def contest(tell: Teller, a: Word, b: Word) -> tuple[str, ...]:
    place = outing(tell, a, b)
    event, prize, spot = tell.pick(things.CONTESTS), treasure(tell), tell.pick(place.corners)
    judge, introduction = neighbor(tell)
    tell.say(tell.form(f"There was going to be {an(event)} {spot}.", f"They had come for {an(event)} {spot}.",
                       f"They had heard of {an(event)} {spot}."))
    tell.say(f"The judge was {introduction}, and the prize was {an(prize.full)}.")

    tell.paragraph()
    polite, other = roles(tell, a, b)
    address(tell, polite, other, tell.form("Good luck", "Do your best", "I hope you win"), words.KINDLY)
    tell.say(f"{other} felt {tell.pick(words.SAD)}, but {polite} felt {tell.pick(words.HAPPY)}.")
    interlude(tell, a, b, TALK)
    winner, loser = roles(tell, a, b)
    tell.say(f"At the end, {judge} raised {judge.his} hand.", pronoun(judge, "his"))
    speak(tell, judge, tell.form(f"The winner is {winner}!", f"{winner} has won!"), words.GLADLY)
    tell.say(tell.form(f"So the {prize.name} went to {winner}.", f"So the {prize.name} was given to {winner}."),
             ("holder", winner, loser))
    speak(tell, loser, tell.form(f"Well done, {winner}", f"You were great, {winner}"), words.GLADLY,
          ("name", winner, loser))
    holder, other = roles(tell, a, b)
    if holder is winner:
        tell.say(tell.form(f"{winner} held the {prize.name} tightly.", f"{winner} kissed the {prize.name}."))
    else:
        tell.say(tell.form(f'"You may carry it home, {loser}," said {winner}.',
                           f'"Carry it for me, {loser}," said {winner}.'), ("name", loser, winner))
    interlude(tell, a, b, SIGHTS)
    tell.say(f"When they left the {place}, the {prize.short} was in the hands of {holder}.",
             ("holder", holder, other))
    return WON
