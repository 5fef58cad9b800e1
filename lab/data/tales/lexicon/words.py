"""How the tales are told: weather and time, games and songs, feelings and manners of speaking, morals."""

from lab.data.tales.lexicon import listed

WEATHERS = listed("""
    sunny, mild, bright, clear, breezy, lovely, quiet, golden, calm, fine, peaceful, pleasant,
    glorious, fresh, gentle, cloudless, dewy, dazzling, perfect, splendid, still, radiant, ordinary,
    beautiful, sleepy, busy, wonderful, joyful, cheerful, delightful
""")
WEEKDAYS = listed("""
    Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday
""")
MONTHS = listed("""
    April, May, June, July, August, September, October
""")
GOING = listed("""
    went, walked, ran, hurried, strolled, skipped, raced, wandered, hiked, marched, trotted, rushed,
    cycled, dashed, tiptoed, danced, hopped, sneaked, paraded
""")
SMELLS = listed("""
    fresh bread, wet grass, pine needles, honey, wood smoke, ripe apples, mint, roses, hay,
    lavender, warm stones, clover, thyme, roasted nuts, lilac, moss, cinnamon, soap, resin, wild
    garlic, coffee, basil, jasmine, dry leaves, orange peel, new paint, wild roses, sawdust, fried
    onions, melted butter, wet stone, seaweed, lemon blossoms, pepper, cocoa, ferns, marigolds,
    honeysuckle, rain, cut wood, tar, vanilla, rosemary, sage, peppermint, grilled corn, hot
    chestnuts, leather
""")
HOUSE_SMELLS = listed("""
    fresh paint, onion soup, pancakes, soap, cinnamon, floor wax, roses, chocolate, coffee, roast
    potatoes, ironed shirts, peppermint tea, warm bread, lemon cake, firewood, old books, candle
    wax, fried eggs, apple jam, vanilla, hot milk, clean sheets, mushroom stew, toast
""")
SOUNDS = listed("""
    a bell rang far away, birds were singing, the wind hummed softly, a dog barked somewhere, bees
    were buzzing, a cuckoo called, leaves were rustling, a tractor rumbled, someone played the
    piano, a train whistled, doves were cooing, a door creaked, children were laughing, a rooster
    crowed, crickets were chirping, a hammer tapped, a radio played old songs, water gurgled nearby,
    geese were honking, a clock struck, somebody sang, hens were clucking, a kettle hissed, an
    engine purred, a drum was beating, an owl hooted, a parrot shrieked, a fountain splashed, a saw
    whined, frogs were croaking, a cart rattled, swallows were twittering, a blackbird sang, a horse
    neighed, a flute was playing, a gate squeaked, a boat horn sounded, ducks were quacking, a broom
    swished, an echo answered
""")
GAMES = listed("""
    tag, hide-and-seek, leapfrog, pirates, hopscotch, knights, catch, cards, dominoes, checkers,
    charades, explorers, detectives, marbles, badminton, soccer, circus, astronauts, cowboys,
    blindman's buff, tug-of-war, robots, mermaids, volleyball, ninjas, dragons, spies, musical
    chairs, statues, firefighters, ping-pong, croquet, dodgeball, hangman, bingo, lion tamers,
    shopkeepers, chess, post office, rock-paper-scissors, acrobats, kings and queens, bandits, red
    rover, treasure hunters
""")
FANCIES = listed("""
    sleepy, grumpy, singing, flying, dancing, forgetful, invisible, ticklish, hungry, tiny,
    enormous, lazy, magic, clumsy, royal, purple, dizzy, wise, naughty, sneezing, giggling, snoring,
    whispering, upside-down, boastful, greedy, noble, bashful, sleepwalking, wandering, barefoot,
    mischievous, jumping, yawning, sleepless, polite, musical, nervous, hiccuping, shy, proud,
    stubborn, brave, curious, cheerful, homesick, gentle, hairy, toothless, chubby, skinny,
    freckled, spotted, striped, bald, bearded, three-legged, one-eyed, knitting, juggling,
    tap-dancing, whistling, marching, absentminded, ambitious, angry, blushing, bouncing, burping,
    cross-eyed, drumming, elegant, famous, friendly, frightened, glowing, gloomy, green, helpful,
    humming, itchy, jealous, jolly, lonely, lovesick, melting, muddy, orange, patient, pink, poetic,
    proper, reading, retired, romantic, rude, sad, seasick, skating, sly, soft, square, sunburned,
    talkative, tired, two-headed, wet, wobbly
""")
CREATURES = listed("""
    dragon, giant, pirate, princess, wizard, king, queen, witch, unicorn, mermaid, goblin, knight,
    elephant, whale, tiger, penguin, camel, crocodile, kangaroo, dinosaur, robot, moon, cloud,
    teapot, snowman, gnome, fairy, bear, octopus, monkey, lion, hippo, bishop, sailor, admiral,
    acrobat, clown, ghost, troll, elf, ogre, phoenix, sphinx, vampire, mummy, cowboy, emperor,
    duchess, baron, butler, chef, plumber, pianist, professor, detective, astronaut, alien, comet,
    volcano, lighthouse, teaspoon, cactus, pumpkin, sunflower, accountant, ballerina, banana,
    barber, beaver, broomstick, buffalo, bulldog, cabbage, camera, captain, centaur, centipede,
    cheese, chimney, conductor, cuckoo clock, cyclops, dentist, dolphin, eel, flamingo, frog, genie,
    giraffe, gorilla, grandfather clock, hamster, hedgehog, jellyfish, koala, lamp, leopard, llama,
    lobster, mailbox, meteor, moose, mountain, noodle, onion, ostrich, owl, panda, pancake, piano,
    pickle, pigeon, porcupine, postman, rhinoceros, sausage, scarecrow, sheriff, skeleton, snail,
    sock, squid, tomato, tortoise, turnip, walrus, waiter, werewolf, yeti, zebra
""")
NUMBERS = listed("""
    two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, twenty, thirteen, fifteen,
    sixteen, thirty
""")
COUNTED = listed("""
    clouds, snails, bicycles, sparrows, daisies, chimneys, butterflies, wagons, ants, mushrooms,
    swallows, windows, puddles, boats, beetles, balloons, cows, dandelions, pigeons, lampposts,
    tulips, dragonflies, hats, gates, bees, worms, acorns, bricks, church bells, crows, doors, fence
    posts, flags, frogs, geese, grasshoppers, holes, kites, ladders, leaves, lizards, poppies,
    rabbits, roofs, sails, spiders, stones
""")

HAPPY = listed("""
    happy, glad, proud, delighted, cheerful, thrilled, pleased, joyful, grateful, relieved, content,
    excited, hopeful, lucky, overjoyed, satisfied, amused, peaceful, jolly, lighthearted, elated,
    carefree, merry, calm, warm inside, wonderful, blissful, brave, cozy, important
""")
SAD = listed("""
    sad, worried, upset, gloomy, unhappy, miserable, anxious, nervous, disappointed, heartbroken,
    troubled, uneasy, tearful, alarmed, downcast, lonely, sorry, embarrassed, discouraged,
    frightened, shocked, guilty, confused, restless, tense, dizzy
""")
CROSS = listed("""
    cross, grumpy, annoyed, sulky, angry, impatient, stubborn, bossy, loud, offended, sour,
    hot-tempered, fierce, mad, prickly, unfriendly
""")
KINDLY = listed("""
    softly, gently, kindly, warmly, calmly, quietly, tenderly, firmly, wisely, sweetly, patiently,
    bravely, earnestly, politely, thoughtfully, sincerely, brightly, slowly, clearly, cheerfully,
    honestly, simply, encouragingly, lovingly, generously, modestly, carefully, casually,
    confidently, frankly, graciously, hopefully, mildly, peacefully, reasonably, seriously, shyly,
    smilingly, soothingly, steadily
""")
GLADLY = listed("""
    happily, cheerfully, brightly, merrily, proudly, eagerly, joyfully, gladly, excitedly, loudly,
    gratefully, playfully, breathlessly, triumphantly, jubilantly, heartily, energetically,
    enthusiastically, delightedly, blissfully, contentedly, exuberantly, fondly, laughingly,
    noisily, radiantly, spiritedly, warmheartedly, wholeheartedly, wildly
""")
SADLY = listed("""
    sadly, nervously, anxiously, gloomily, hoarsely, faintly, miserably, timidly, unhappily, weakly,
    tearfully, desperately, glumly, shakily, fearfully, wearily, dully, feebly, forlornly,
    hesitantly, hopelessly, moodily, mournfully, pitifully, regretfully, softly, solemnly,
    sorrowfully, sheepishly, sulkily, tensely, uneasily
""")
COMFORTS = listed("""
    a big hug, a gentle kiss, a warm smile, a pat on the back, a cup of tea, a bedtime story, a
    slice of toast, a soft pillow, a high five, a spoonful of honey, a glass of milk, a warm
    blanket, a chocolate coin, a bowl of soup, a new book, a hot bath, a sugar cube, a slice of cake
""")
SLEEPS = listed("""
    soundly, deeply, peacefully, snugly, quietly, well, comfortably, calmly, happily, heavily,
    lightly, long, sweetly, warmly, tightly
""")
DEADLINES = listed("""
    sunset, supper, dark, dinner, the evening bell, the last train, the end of the day, bedtime,
    nightfall, sundown, six o'clock, seven o'clock, eight o'clock, twilight, moonrise, closing time
""")
CHORES = listed("""
    water the tomatoes, feed the hens, return a library book, sweep the porch, mail a letter, pick
    the beans, walk the dog, wash the windows, brush the pony, polish the trumpet, rake the path,
    shell the peas, empty the mousetraps, wind the tower clock, rinse the paint jars, gather the
    eggs, air the blankets, tune the guitar, label the jam jars, sort the buttons, oil the hinges,
    weed the carrots, chop the parsley, dust the shelves, beat the rugs, paint the mailbox, clean
    the aquarium, stack the chairs, peel the onions, iron the napkins, fill the bird feeder, close
    the barn door, bake a cake, build a fire, carry the firewood, comb the goat, count the candles,
    deliver the newspapers, fold the laundry, grease the wagon, hang up the posters, knead the
    dough, light the lanterns, measure the curtains, mop the floor, pack the suitcase, peel the
    apples, plant the lettuce, polish the silver, repair the swing, roll the barrels, scrub the tub,
    seal the envelopes, set the table, sharpen the pencils, shovel the sand, sift the flour, stuff
    the pillows, tie up the roses, trim the hedge, turn the compost, unload the cart, untangle the
    nets, wrap the presents
""")
TEMPTATIONS = listed("""
    fly kites, catch frogs, race snails, build a dam, play soccer, climb the old tower, chase
    butterflies, pick berries, swim a little, watch the parade, look for treasure, ride the ferry,
    bounce on the haystack, spy on the ducks, visit the puppies, dig a tunnel, bake mud pies, blow
    bubbles, build a fort, catch fish, climb a hill, collect shells, count trains, dance on the
    wall, feed the swans, fold paper boats, hunt for fossils, jump over puddles, look at the ships,
    make a bonfire, paint stones, play a trick, play marbles, ride the pony, roll down the hill, run
    a race, sing for the cows, skip stones, splash around, swing on the gate, tell riddles, throw
    sticks, try the swings, visit the blacksmith, wade in the brook, walk on stilts, watch the
    acrobats, wrestle
""")
STORMS = listed("""
    heavy rain, cold hail, a fierce wind, a thunderstorm, a sudden downpour, thick drizzle, a wild
    gale, a cloudburst
""")
OMENS = listed("""
    the sky grew dark, thunder rolled, black clouds gathered, the swallows flew low, a gust shook
    the trees, the sun disappeared, fat drops began to fall, the air turned chilly, lightning
    flashed, the leaves whirled around, the light turned gray, a cold breeze rose, the birds fell
    silent, a rumble came closer, the flags flapped wildly, mist crept over the ground, a branch
    snapped, a cloud hid the sun, a dog began to howl, a shadow fell over the path, a window banged,
    dust blew everywhere, far lightning glowed, the bees went home, the cows lay down, the crows
    fled, the grass bent low, the horizon turned black, the hens ran inside, the treetops swayed,
    the water turned gray, the wind grew wild
""")
WONDERS = listed("""
    a double rainbow, a patch of blue sky, a band of golden light, a sparkling spiderweb, a hundred
    shiny puddles, a family of snails, a shining river, a steaming road, a crowd of frogs, a silver
    mist, a glittering hedge, a bathing sparrow, a dripping cat, a row of wet daisies, a parade of
    umbrellas, a pink sunset, a bright moon, a butterfly with wet wings, a cheerful duck, a clean
    white path, a dancing swarm of gnats, a dozen toads, a flooded ditch, a glowing cloud, a happy
    frog, a lake of mud, a long earthworm, a mirror of water, a pair of swans, a row of dripping
    trees, a singing thrush, a wide orange sky
""")
HUGS = listed("""
    a big hug, a gentle kiss, a warm smile, a pat on the back, a long look, a high five, a wave, a
    friendly wink
""")
FINE = listed("""
    grand, sturdy, perfect, marvelous, amazing, wonderful, magnificent, strong, charming, beautiful,
    splendid, lovely, stunning, glorious, impressive, fantastic
""")
