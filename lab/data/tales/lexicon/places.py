"""Where the tales happen: places, each with six corners in which one can sit or leave a thing."""

from lab.data.tales.lexicon import Word, listed


def place(name: str, at: str, corners: str) -> Word:
    return Word(name, at=at, corners=listed(corners))


PLACES = (
    place("park", "in the park", """on the green bench, under the chestnut tree, beside the fountain,
          behind the statue, near the duck pond, next to the bandstand"""),
    place("beach", "at the beach", """on the flat rock, under the striped umbrella, beside the lifeguard tower,
          behind the dunes, near the old rowboat, next to the ice cream stand"""),
    place("orchard", "in the orchard", """on the stone wall, under the pear tree, beside the ladder,
          behind the cider press, near the beehives, next to the wheelbarrow"""),
    place("meadow", "in the meadow", """on the tree stump, under the lone birch, beside the brook,
          behind the haystack, near the scarecrow, next to the wooden fence"""),
    place("forest", "in the forest", """on the mossy log, under the tallest pine, beside the stream,
          behind the boulder, near the fox den, next to the ferns"""),
    place("playground", "at the playground", """on the seesaw, under the slide, beside the sandbox,
          behind the climbing frame, near the swings, next to the merry-go-round"""),
    place("harbor", "at the harbor", """on the wooden pier, under the signal mast, beside the crab traps,
          behind the fish stall, near the lighthouse, next to the blue anchor"""),
    place("farm", "on the farm", """on the hay cart, under the walnut tree, beside the chicken coop,
          behind the barn, near the pigpen, next to the tractor"""),
    place("market", "at the market", """on the stone steps, under the red awning, beside the flower stall,
          behind the spice stand, near the bakery van, next to the cheese counter"""),
    place("garden", "in the garden", """on the swing seat, under the rose arch, beside the lily pond,
          behind the shed, near the sunflowers, next to the tomato patch"""),
    place("lake", "at the lake", """on the diving raft, under the weeping willow, beside the canoe,
          behind the reeds, near the boathouse, next to the dock"""),
    place("village square", "in the village square", """on the church steps, under the lime tree, beside the well,
          behind the town hall, near the bus stop, next to the bell tower"""),
    place("campground", "at the campground", """on the picnic table, under the hammock, beside the fire pit,
          behind the green tent, near the water pump, next to the woodpile"""),
    place("schoolyard", "in the schoolyard", """on the low wall, under the big clock, beside the flagpole,
          behind the gym, near the bicycle rack, next to the drinking fountain"""),
    place("vineyard", "in the vineyard", """on the empty barrel, under the grape arbor, beside the tool chest,
          behind the wine cellar, near the gravel road, next to the rain gauge"""),
    place("fairground", "at the fairground", """on the ticket booth, under the giant balloon,
          beside the popcorn cart, behind the puppet theater, near the carousel, next to the Ferris wheel"""),
    place("zoo", "at the zoo", """on the turtle bench, under the palm tree, beside the penguin pool,
          behind the monkey house, near the camel stable, next to the parrot cage"""),
    place("castle", "at the castle", """on the broken wall, under the stone arch, beside the drawbridge,
          behind the round tower, near the cannon, next to the iron gate"""),
    place("train station", "at the train station", """on the long bench, under the timetable,
          beside the luggage cart, behind the kiosk, near the footbridge, next to the ticket machine"""),
    place("botanical garden", "in the botanical garden", """on the potting table, under the lemon tree,
          beside the rain barrel, behind the cactus shelf, near the orchids, next to the watering cans"""),
    place("river", "at the river", """on the sandbank, under the stone bridge, beside the mill wheel,
          behind the alders, near the beaver dam, next to the ferry landing"""),
    place("hilltop", "on the hilltop", """on the grassy mound, under the crooked oak, beside the weather vane,
          behind the chapel, near the lookout post, next to the windmill"""),
    place("museum yard", "in the museum yard", """on the marble block, under the whale skeleton,
          beside the steam engine, behind the sculpture, near the sundial, next to the stone lion"""),
    place("skate park", "at the skate park", """on the halfpipe, under the floodlight, beside the ramp,
          behind the graffiti wall, near the vending machine, next to the tire stack"""),
)

HOUSE_CORNERS = listed("""
    near the window, under the stairs, beside the fireplace, behind the sofa, near the kitchen
    door, next to the piano, next to the round table, by the coat rack
""")
DWELLINGS = listed("""
    house, cottage, cabin, farmhouse, bungalow, lodge, mill house, villa, brick house, log cabin,
    townhouse, manor, hut, row house, tower, chalet
""")
ADDRESSES = listed("""
    near the harbor, at the edge of the village, beside a slow river, on a windy hill, at the end of
    a long lane, behind the old church, next to a bakery, close to the railroad, in the middle of
    town, by the sea, across from the library, on the sunny side of the valley, near a dark forest,
    beside a duck pond, at the foot of a mountain, not far from the bridge, on a quiet street, on
    the main road, next to a toy shop, opposite the school, among apple trees, beside a canal,
    behind a tall hedge, near a waterfall
""")
LANDMARKS = listed("""
    bridge, crossroads, bakery, post office, old mill, church, water tower, fire station, library,
    corner shop, big oak, railroad crossing, town gate, stone cross, barber shop, bus shelter,
    pharmacy, horse trough, white fence, flower shop, bookstore, brick chimney, fish market,
    milestone, town fountain, bowling alley, cheese shop, clock tower, dairy, gas station, hardware
    store, hospital, hotel, kindergarten, movie theater, newsstand, observatory, park gate, police
    station, power plant, shoe store, signpost, sports field, swimming pool, tea house, telephone
    booth, toy store, wishing well
""")
WAYS = listed("""
    walking backward, holding hands, singing loudly, crawling slowly, taking tiny steps, jumping
    twice, helping each other, closing one eye, standing on tiptoe, humming a march, counting every
    step, using a long stick, going around it, being very careful, pretending to be goats, staying
    close together, clapping loudly, counting backward, crawling on all fours, dancing, going one by
    one, hopping on one leg, keeping quiet, leaning on a branch, looking straight ahead, pushing
    hard, reciting a poem, rolling sideways, swinging both arms, thinking of cake, walking arm in
    arm, whistling bravely
""")
SHELTERS = listed("""
    an empty barn, a boat shed, a narrow cave, a bus shelter, a little chapel, a woodshed, a hollow
    tree, a gatehouse, a hay loft, a garden hut, a railroad car, a fishing hut, an old stable, a
    watchtower, a tea room, a bicycle shed, a bakery, a bandstand, a barn door, a blue tent, a
    cattle shed, a cow stable, a drainpipe, a flower shop, a goat shed, a log cabin, a market hall,
    a pavilion, a stone hut, a toolshed, a tunnel, a windmill
""")
HURDLES = listed("""
    a muddy ditch, a creaky bridge, a thorny hedge, a steep slope, a field of nettles, a fallen
    tree, a noisy stream, a rickety stile, a row of slippery stones, a dark tunnel, a flock of
    geese, a patch of brambles, a deep puddle, a sandy hollow, a maze of corn, a swampy path, a
    barking dog, a broken gate, a crumbling wall, a crowd of cows, a field of thistles, a flooded
    road, a gloomy alley, a high fence, a huge boulder, a line of ants, a narrow ledge, a pile of
    logs, a rushing brook, a stretch of gravel, a tall stairway, a wobbly plank
""")
