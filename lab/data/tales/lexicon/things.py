"""What the tales are about: treasures, treats, animals, materials, and what can break and be repaired."""

from lab.data.tales.lexicon import Word, an, listed

COLORS = listed("""
    red, blue, green, yellow, orange, purple, pink, white, black, brown, gray, silver, golden,
    turquoise, crimson, violet, amber, bronze, beige, ivory, scarlet, navy, olive, copper
""")
QUALITIES = listed("""
    little, small, tiny, lovely, splendid, special, pretty, beautiful, neat, new, old, simple,
    fancy, elegant, funny-looking, precious, big, huge, shiny, plain, handmade, well-made, charming,
    graceful, curious, unusual, modern, old-fashioned, sturdy, delicate, polished, odd, famous,
    ordinary, spotless, marvelous, quaint, dainty, gorgeous, dazzling, useful, striped
""")
TREASURES = listed("""
    kite, ball, doll, drum, whistle, scarf, hat, lantern, teddy bear, marble, puppet, yo-yo, flute,
    trumpet, notebook, storybook, puzzle, compass, telescope, toy boat, toy train, umbrella,
    necklace, bracelet, ribbon, feather, flashlight, harmonica, paintbrush, backpack, mitten,
    button, flag, mask, spinning top, pinwheel, music box, tambourine, jump rope, sweater, cap, key
    ring, magnet, camera, pocket watch, sketchbook, rubber duck, toy rocket, boomerang, crayon box,
    hairbrush, lunch box, bandana, bow tie, paper plane, snow globe, slingshot, medal, star map,
    pencil case, frisbee, toy robot, jigsaw, lasso, tin soldier, toy crane, toy airplane, fan,
    locket, thermos, kazoo, xylophone, banjo, bugle, ukulele, stamp album, diary, comic book,
    picture book, cookbook, atlas, hourglass, clock, alarm clock, jewelry box, treasure chest, chess
    set, domino set, deck of cards, skateboard, scooter, helmet, racket, football, basketball, beach
    ball, beanbag, balloon, butterfly net, fishing rod, toy wagon, toy truck, rag doll, tea set,
    airship model, badge, bathrobe, bell, belt, binder, bookmark, bucket, candle, cardigan, carpet
    bag, cello, clarinet, coin purse, crown, cushion, dress, fiddle, gong, guitar, hoodie, horn,
    jacket, jar, jewel, kaleidoscope, lamp, lute, map, mirror, model plane, mug, paint box, parasol,
    pen, pencil, penknife, piggy bank, pillow, quilt, raincoat, rattle, ruler, sash, shawl, ship
    model, shirt, sombrero, stamp, suitcase, sun hat, thimble, toolbox, top hat, toy bus, toy
    castle, toy elephant, toy lion, toy ship, toy tiger, triangle, vest, viola, wagon, watch,
    wristband, zither
""")
FINDS = listed("""
    spoon, glove, key, shoe, bottle cap, bone, stamp, newspaper, rope, postcard, comb, candle, cork,
    thimble, coin, sock, ticket, sponge, nail, jar, brush, bucket, chain, hook, fork, pipe, tin can,
    envelope, feather duster, shoelace, light bulb, clothespin, handkerchief, doorknob, playing
    card, saucer, paper cup, belt, slipper, mirror, teacup, horseshoe, ladle, teaspoon, battery,
    whisk, zipper, bead, safety pin, scarf, padlock, lid, pencil, eraser, ruler, dice, paper bag,
    bookmark, toothbrush, wrench, cowbell, spring, marble, ribbon, pillowcase,
    hatbox, sandal, necktie, funnel, cushion, abacus, armband, backscratcher, banana peel,
    barrette, boot, bow, buckle, calculator, can opener, carrot, cassette,
    chess piece, clip, coat hanger, coconut shell, cookie, corkscrew, crown, cup, curler, dishrag,
    dustpan, earring, egg cup, eggshell, fishbone, flute case, fossil, hairpin,
    hammer, hinge, ink bottle, jigsaw piece, kettle, knob, leash, letter, mousetrap, mug, napkin,
    necklace, nutcracker, paperclip, pebble, peanut, pillow, pine cone, plate, plug, pot lid,
    puppet, radish, rolling pin, rubber band, seashell, shovel, sieve, stick, stone, straw, string,
    teabag, tennis ball, toy wheel, umbrella, wallet, watch strap, wheel, whistle
""")
WORN = listed("""
    muddy, dusty, dirty, soggy, forgotten, worn, sandy, sticky, crumpled, scratched, shabby, lonely,
    broken, rusty, faded, bent, chipped, cracked, torn, dented, moldy, stained, wrinkled, frozen,
    tattered, ragged, squashed, hollow, greasy, crooked, cobwebbed, nameless, ancient, battered,
    bleached, cold, cute, damp, dull, fluffy, foreign, heavy, homemade, itchy, knotted, loose, lost,
    painted, patched, peeling, pointed, rough, rubbery, scruffy, secondhand, slimy, smelly, smooth,
    spotted, tangled, thin, ugly, unlucky, warped, weird, wobbly, wooden
""")


def food(phrase: str, it: str) -> Word:
    return Word(phrase, it=it, was="was" if it == "it" else "were", other="they" if it == "it" else "it")


PLURAL_FOODS = listed("""
    apples, pears, plums, cherries, strawberries, raspberries, blueberries, grapes, peaches,
    walnuts, almonds, raisins, pretzels, pancakes, waffles, muffins, cookies, crackers, sandwiches,
    dumplings, biscuits, scones, pastries, cupcakes, bagels, figs, dates, oranges, bananas,
    apricots, hazelnuts, peanuts, gingersnaps, brownies, doughnuts, meatballs, olives, radishes,
    lemon drops, jam tarts, cheese sticks, rice balls, honey cakes, truffles, toffees, pickles,
    chestnuts, blackberries, beans, carrots, cranberries, currants, gooseberries, kiwis, lemons,
    limes, mangoes, nectarines, papayas, peas, sausages, noodles, crepes, croissants, macaroons,
    marshmallows, meringues, nuts, oatcakes, pistachios, popovers, potato chips, rolls, spring
    rolls, sugar sticks, sunflower seeds, tomatoes, turnovers, wafers, fish cakes
""")
CAKES = listed("""
    apple pie, cherry cake, loaf of bread, bowl of porridge, chocolate bar, carrot cake, pot of
    soup, lemon tart, jar of honey, plum pudding, bag of popcorn, piece of cheese, potato salad,
    cinnamon bun, omelet, watermelon, pineapple, coconut, slice of pizza, tub of yogurt, nut roll,
    ginger loaf, pumpkin pie, almond cake, bowl of custard, bowl of rice, cheese
    sandwich, coffee cake, cucumber, fruit salad, gingerbread heart, jelly roll, baked potato, layer
    cake, mushroom pie, peach cobbler, pot of jam, slice of ham, walnut cake
""")
FOODS = (
    *(food(f"some {name}", "they") for name in PLURAL_FOODS),
    *(food(an(name), "it") for name in CAKES),
)
TASTES = listed("""
    delicious, tasty, wonderful, fresh, perfect, scrumptious, excellent, yummy, superb, divine,
    heavenly, marvelous, magnificent, fantastic, incredible, better than ever, amazing, a bit sour,
    a little salty, crunchy, juicy, just right, lovely, not bad at all, quite good, rather sweet,
    really special, simply the best, so good, spicy, still warm, surprisingly good
""")
DRINKS = listed("""
    apple juice, cold milk, lemonade, mint tea, hot cocoa, ginger tea, clear water, cranberry juice,
    iced tea, pear cider, elderflower syrup, grape juice, vanilla milk, honey water, carrot juice,
    orange soda, almond milk, apricot nectar, beet juice, birch water, cherry juice, chocolate milk,
    coconut milk, cold cocoa, fruit punch, lime soda, malt drink, orange juice, peach tea, rose hip
    tea, soda water, strawberry milk
""")
CARRIERS = listed("""
    basket, bag, box, tin, hamper, parcel, sack, crate, bucket, suitcase, backpack, lunch box, cloth
    bag, picnic basket, tote bag, wooden box
""")

ANIMALS = listed("""
    squirrel, robin, hedgehog, rabbit, fox, deer, frog, toad, duck, goose, swan, heron, owl,
    woodpecker, sparrow, magpie, crow, butterfly, bumblebee, dragonfly, snail, beetle, ladybug,
    grasshopper, mouse, mole, badger, otter, lizard, turtle, cat, goat, pony, hen, rooster, turkey,
    pigeon, seagull, caterpillar, cricket, hare, weasel, raccoon, beaver, parrot, falcon, donkey,
    salamander, swallow, bluebird, finch, nightingale, woodchuck, chipmunk, bat, lark, starling,
    kingfisher, crane, stork, partridge, pheasant, peacock, jay, wren, moth, firefly, spider, ant,
    earthworm, slug, newt, tortoise, calf, foal, goldfinch, bullfinch, dormouse, shrew, marten
""")
LOOKS = listed("""
    fat, thin, spotted, young, old, tiny, huge, black, brown, gray, white, sleepy, lively, lame, wet, beautiful,
    strange, hungry, nervous, fluffy, plump, ragged, brave, shy, muddy, graceful, clever, noisy, silent, curious,
    busy, lost
""")
ANIMAL_DOINGS = listed("""
    hurrying past, watching them closely, looking for breakfast, drinking from a puddle, hiding
    behind a stone, sitting very still, chasing its shadow, resting in the shade, crossing the path,
    stretching in the sun, peeking around a corner, nibbling a leaf, making a funny noise, listening
    to the wind, sniffing the air, waiting for its friends, turning in circles, blinking at the sun,
    collecting crumbs, rubbing its nose, taking a nap, admiring a puddle, guarding a crumb, playing
    with a leaf, climbing over a root, counting its toes, carrying a twig, looking rather proud,
    minding its own business, scratching its head, inspecting a daisy, talking to itself
""")
YOUNG = listed("""
    kitten, puppy, lamb, duckling, gosling, chick, fawn, piglet, owlet, bunny, fox cub, hedgehog,
    squirrel, songbird, turtle, mouse
""")
PLIGHTS = listed("""
    shivering, limping, trembling, all alone, very tired, quite lost, muddy, hungry, cold, thirsty,
    frightened, weak, wet, dizzy
""")
WRAPS = listed("""
    scarf, sweater, jacket, shawl, towel, blanket, coat, apron, cape, shirt, napkin, pillowcase,
    tablecloth, vest, curtain, poncho
""")


def breakage(things: str, damage: str, mended: str, tools: str) -> Word:
    return Word(damage, things=listed(things), mended=mended, tools=listed(tools))


BREAKAGES = (
    breakage("vase, teapot, plate, mug, flowerpot, bowl, pitcher, piggy bank", "broke in two", "glued",
             "tube of glue, pot of paste, jar of cement, bottle of resin"),
    breakage("kite, paper lantern, poster, map, calendar, songbook, paper crown, party hat", "tore in the middle",
             "taped", "roll of tape, strip of film, sticky label, sheet of stickers"),
    breakage("pillow, cape, rag doll, apron, costume, tablecloth, quilt, sock puppet", "ripped along the seam",
             "stitched", "needle and thread, sewing kit, spool of yarn, box of patches"),
    breakage("toy wagon, wooden horse, birdhouse, music box, cuckoo clock, toy crane, tin robot, picture frame",
             "lost a screw",
             "fixed", "screwdriver, little wrench, handy toolbox, pair of pliers"),
)
TRIPS = listed("""
    a shoelace, a toy truck, a sleeping dog, a skateboard, a suitcase, a doormat, a wooden block, a
    tennis ball, a cushion, a pile of books, a laundry basket, a wet boot, a footstool, a fold in
    the rug, a coil of wire, an umbrella
""")


def skill(doing: str, fails: str, success: str) -> Word:
    """A skill by its infinitive: how first attempts go wrong ("{he} ...") and what success looks like."""
    return Word(doing, fails=listed(fails), success=success)


SKILLS = (
    skill("ride a bicycle", "fell into the grass, bumped into a bush, lost a pedal",
          "rode all the way to the corner"),
    skill("whistle", "only blew air, made a squeak, spat by mistake", "whistled a whole tune"),
    skill("juggle", "dropped every ball, got dizzy, hit a lamp", "kept three balls in the air"),
    skill("skate", "slipped backward, sat down hard, grabbed the rail", "glided in a smooth circle"),
    skill("bake bread", "burned the crust, forgot the salt, spilled the flour", "pulled out a golden loaf"),
    skill("play the violin", "scratched the strings, scared the cat, lost the beat", "played a sweet melody"),
    skill("tie a sailor knot", "made a tangle, tied two fingers together, pulled the wrong end",
          "tied a knot that held a boat"),
    skill("row a boat", "went in circles, splashed everyone, dropped an oar", "rowed straight across the water"),
    skill("swing a lasso", "caught a mailbox, whipped the dust, roped a chair", "caught the fence post"),
    skill("do a handstand", "toppled over, kicked a flowerpot, rolled away", "stood steady for ten seconds"),
    skill("dance the polka", "stepped on toes, turned the wrong way, stumbled twice", "danced from wall to wall"),
    skill("fold a paper crane", "tore the sheet, bent a wing, mixed up the steps", "folded a crane that flapped"),
    skill("walk on stilts", "wobbled badly, tipped sideways, jumped off", "strode along like a giant"),
    skill("knit a sock", "dropped a stitch, ran out of wool, knotted the yarn", "held up a warm sock"),
    skill("jump rope", "tripped at once, tangled both feet, hopped too late", "jumped fifty times in a row"),
    skill("milk a goat", "missed the pail, got a kick, startled the goat", "filled a pail with milk"),
)
TIPS = listed("""
    Start slowly, Breathe deeply, Look straight ahead, Watch my hands, Count to three first, Relax
    your shoulders, Take your time, Listen to the rhythm, Keep your back straight, Trust yourself,
    Smile while you do it, Try a smaller step, Close your eyes for a moment, Never hurry, Begin
    again from the start, Think of a song, Bend your knees, Be patient, Do not give up, Follow my
    lead, Forget your fear, Hold on tight, Imagine a bird, Keep calm, Keep going, Laugh at your
    mistakes, Let go at the right time, Move like a cat, Put your heart into it, Stand up tall, Stay
    relaxed, Take a short break
""")

PET_NAMES = listed("""
    Button, Pepper, Biscuit, Pumpkin, Fluffy, Pip, Noodle, Sparkle, Muffin, Bramble, Pickle, Cocoa,
    Velvet, Nugget, Twinkle, Waffle, Patches, Cookie, Marble, Tumble, Truffle, Raisin, Bubbles,
    Ziggy, Peanut, Tofu, Mocha, Pebble, Snuggles, Bean, Widget, Fidget, Acorn, Bamboo, Blossom,
    Bumble, Caramel, Chestnut, Clover, Crumpet, Dumpling, Fern, Fudge, Ginger, Hazelnut, Honey,
    Jellybean, Licorice, Maple, Mittens, Nutmeg, Oatmeal, Olive, Paprika, Parsley, Pretzel, Puddle,
    Rascal, Rocket, Scout, Smudge, Sprout, Toffee, Whiskers
""")
PROJECTS = listed("""
    raft, birdhouse, sandcastle, treehouse, go-kart, dollhouse, catapult, puppet stage, windmill,
    doghouse, soapbox car, drawbridge, spaceship, marble run, robot, lemonade stand, rocket, castle,
    tower, ship, airplane, tent, bridge, carousel, fort, hut, igloo, lighthouse, music machine,
    pirate ship, seesaw, submarine, swing, totem pole, train, wagon, water wheel, weather station,
    trophy stand, obstacle course, maze, bandstand, bakery, chariot, dragon, merry-go-round, post
    office, stable
""")
MATERIALS = listed("""
    planks, ropes, nails, ribbons, bottles, pebbles, branches, boxes, wheels, corks, feathers,
    buttons, bricks, sticks, shells, acorns, pinecones, wires, springs, bolts, rags, reeds, tiles,
    hinges, logs, straws, beads, poles, crates, barrels, clothespins, pulleys, baskets, blocks,
    broomsticks, buckets, candles, cans, cardboard tubes, clamps, cushions, curtains, doorknobs,
    flags, flowerpots, gears, hoops, jars, ladders, lids, marbles, mirrors, pans, pegs, pillows,
    pipes, pots, rods, sacks, sheets, slats, spoons, stones, tires
""")
PROJECT_NAMES = listed("""
    Thunderbolt, Sea Star, Silver Swan, Happy Hippo, Moonbeam, Little Giant, Brave Snail, Golden
    Goose, Whirlwind, Sleepy Bear, Comet, Rainbow, Firefly, Old Faithful, Jumping Bean, Secret
    Palace, Blue Whale, Big Adventure, Bumblebee, Clever Fox, Dragonfly, Early Bird, Fearless,
    Fortune, Friendship, Grasshopper, Great Wonder, Hurricane, Jolly Roger, Lucky Star, Morning
    Glory, Mountain Goat, Night Owl, North Star, Paradise, Pioneer, Quick Hare, Sky Dancer, Snow
    Goose, Spirit, Storm King, Sunshine, Tiger, Traveler, Victory, White Cloud
""")
CONTESTS = listed("""
    sack race, spelling bee, singing contest, three-legged race, egg-and-spoon race, drawing
    contest, relay race, pie contest, costume contest, hopping race, yodeling contest, treasure
    hunt, quiz, kite contest, wheelbarrow race, dancing contest, cooking contest, joke contest,
    poetry contest, juggling contest, backward race, whistling contest, pillow fight, hat contest,
    puzzle contest, balloon race, sprint, tug-of-war, cartwheel contest, memory game, riddle
    contest, pumpkin contest
""")
