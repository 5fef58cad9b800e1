"""Who appears in the tales: children, relatives and neighbors, with the pronouns that go with them."""

from lab.data.tales.lexicon import Word, listed

FEMALE = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her", "child": "girl"}
MALE = {"he": "he", "him": "him", "his": "his", "He": "He", "His": "His", "child": "boy"}
GIRLS = listed("""
    Ada, Alice, Amy, Anna, Bella, Bonnie, Carla, Cleo, Dora, Edith, Ella, Emma, Esther, Eva, Fiona,
    Flora, Frida, Gina, Greta, Hanna, Helen, Ida, Irene, Jane, Jenny, Judy, Julia, Kate, Laura,
    Lena, Lily, Lina, Lisa, Lola, Lucy, Maria, Martha, Mary, Maya, Mia, Mina, Molly, Nadia, Nina,
    Nora, Olga, Paula, Penny, Rita, Rosa, Ruth, Sally, Sara, Sofia, Stella, Susan, Tessa, Tina, Uma,
    Vera, Wanda, Willa, Yara, Zoe
""")
BOYS = listed("""
    Adam, Albert, Anton, Arthur, Ben, Boris, Bruno, Carl, Colin, Daniel, David, Dylan, Eddie, Emil,
    Eric, Felix, Finn, Fred, George, Gus, Hans, Harry, Henry, Hugo, Ian, Isaac, Jacob, James, Jim,
    Joe, John, Jonas, Kevin, Leo, Liam, Louis, Lucas, Luke, Marco, Martin, Max, Milo, Nathan, Noah,
    Oliver, Omar, Oscar, Otto, Paul, Pedro, Peter, Philip, Ralph, Ravi, Sam, Simon, Theo, Thomas,
    Tim, Toby, Victor, Walter, Yusuf, Zack
""")
CHILDREN = tuple(Word(name, **FEMALE) for name in GIRLS) + tuple(Word(name, **MALE) for name in BOYS)

RELATIVES = (
    *(Word(word, **FEMALE) for word in listed("mother, grandmother, aunt, godmother, big sister, stepmother")),
    *(Word(word, **MALE) for word in listed("father, grandfather, uncle, godfather, big brother, stepfather")),
)

SURNAMES = listed("""
    Abbott, Adler, Bell, Bishop, Blake, Brook, Burns, Carter, Clay, Cole, Dale, Drake, Ellis, Evans,
    Field, Finch, Ford, Frost, Grant, Hall, Hardy, Hill, Holmes, Hood, Jones, Kent, King, Lake,
    Lamb, Lane, Lowe, Marsh, Moss, Nash, North, Page, Park, Pine, Pond, Poole, Reed, Shaw, Snow,
    Stone, Swift, West, Wood, Baxter, Bond, Bradley, Campbell, Chase, Clark, Coleman, Dawson, Dixon,
    Doyle, Dunn, Elliott, Emerson, Farrell, Flynn, Foster, Garcia, Gibson, Gomez, Graham, Gray,
    Harper, Hayes, Hudson, Hughes, Irving, Jensen, Keller, Kelly, Kowalski, Larson, Lopez, Morris,
    Murphy, Nelson, Novak, Olsen, Parker, Patel, Quinn, Ramsey, Russo, Silva
""")
NEIGHBORS = (
    *(Word(f"Mrs. {name}", **FEMALE) for name in SURNAMES),
    *(Word(f"Mr. {name}", **MALE) for name in SURNAMES),
)
JOBS = listed("""
    baker, gardener, farmer, librarian, painter, carpenter, teacher, nurse, doctor, tailor,
    shoemaker, blacksmith, beekeeper, miller, potter, musician, clockmaker, shopkeeper, ferry
    captain, cook, florist, weaver, sailor, ranger, shepherd, grocer, mechanic, plumber, bus driver,
    dentist, piano teacher, bookseller, candle maker, cheese maker, toy maker, mayor, photographer,
    dancer, pilot, juggler, butcher, barber, hairdresser, jeweler, judge, lawyer, engineer,
    firefighter, police officer, train conductor, taxi driver, truck driver, street sweeper, chimney
    sweep, window cleaner, electrician, locksmith, roofer, bricklayer, stonemason, sculptor, poet,
    actor, singer, violinist, drummer, magician, zookeeper, lifeguard, goalkeeper, mail carrier,
    astronomer, chemist
""")
ERRANDS = listed("""
    sweeping the steps, feeding the pigeons, reading a newspaper, painting a fence, mending a net,
    tying up roses, carrying a ladder, walking a dog, humming a waltz, polishing a bell, peeling
    potatoes, winding a clock, washing windows, knitting a sock, sharpening pencils, stacking
    firewood, raking leaves, fixing a bicycle, eating a sandwich, talking to a cat, sorting letters,
    counting coins, drawing a map, sipping tea, whistling a tune, planting bulbs, trimming a hedge,
    oiling a gate, hanging up laundry, filling a bucket, writing a postcard, patching a tent,
    beating a carpet, shining shoes, chopping onions, blowing up balloons, buying mushrooms, looking
    for a hat, cleaning a trumpet, darning a glove, folding towels, grinding coffee, gluing a plate,
    hunting a wasp, kneading dough, loading a truck, measuring a door, pasting posters, pumping up a
    tire, pushing a cart, rolling a barrel, sawing a plank, scrubbing a pan, shaking a blanket,
    slicing bread, solving a crossword, stirring jam, studying the sky, testing a whistle, tying a
    parcel, unloading crates, waxing a car, weighing plums, yawning at the sun
""")

TRAITS = listed("""
    curious, brave, cheerful, gentle, clever, quiet, lively, patient, friendly, careful, playful,
    shy, honest, bold, kind, thoughtful, merry, polite, eager, funny, calm, dreamy, helpful,
    sensible, tidy, generous, adventurous, imaginative, hopeful, restless, nimble, energetic, loyal,
    chatty, daring, plucky, inventive, modest, stubborn, bright, witty, graceful, trusting,
    easygoing, earnest, observant, considerate, resourceful, ambitious, artistic, attentive, bouncy,
    caring, charming, cheeky, confident, daydreaming, determined, fearless, forgetful, forgiving,
    gifted, giggly, hardworking, humble, impatient, joyful, lucky, mischievous, musical, neat,
    optimistic, outspoken, peaceful, practical, proud, punctual, serious, sleepy, truthful,
    absentminded, agreeable, amiable, athletic, bubbly, bashful, careless, cautious, cool-headed,
    courteous, dependable, diligent, dutiful, fair, fun-loving, handy, happy-go-lucky, independent,
    inquisitive, levelheaded, logical, messy, noisy, open-minded, orderly, poetic, quick, reliable,
    romantic, self-assured, shrewd, skillful, sociable, spirited, strong, studious, tactful,
    talented, timid, tireless, trustworthy, unselfish, upbeat, warmhearted, wise, wild, zany
""")
GARMENTS = listed("""
    scarf, hat, cap, coat, jacket, sweater, shirt, vest, raincoat, belt, bow tie, bandana, headband,
    backpack, watch, cape, hood, T-shirt, tunic, apron, beret, poncho, bracelet, necklace, ring,
    badge, ribbon, beanie, straw hat, sun hat, wristband
""")
HOBBIES = listed("""
    collecting shells, drawing dragons, climbing trees, baking bread, reading mysteries, building
    towers, flying kites, catching tadpoles, painting portraits, telling jokes, inventing machines,
    singing ballads, watching birds, growing pumpkins, playing chess, riding ponies, skipping rope,
    solving riddles, folding paper, dancing barefoot, making puppets, writing poems, studying
    insects, sailing boats, counting stars, jumping puddles, knitting mittens, polishing stones,
    learning languages, exploring caves, acting in plays, drumming on pots, doing magic tricks,
    cooking noodles, hunting for fossils, balancing on walls, whittling sticks, pressing flowers,
    taking photographs, feeding goats, carving soap, weaving baskets, throwing frisbees, rolling
    down hills, walking on stilts, mapping trails, imitating owls, tasting cheeses, hunting for
    mushrooms, racing turtles, blowing bubbles, making candles, baking cookies, feeding ducks,
    dancing in the rain, juggling oranges, carving pumpkins, playing the drums, watching trains,
    planting beans, reading maps, telling ghost stories, building dams, making snowmen, writing
    letters, sewing costumes, catching crickets, brushing ponies, walking backward, chasing shadows,
    drawing comics, picking berries, playing the flute, keeping bees, cleaning windows, collecting
    stamps, looking at clouds, swimming in rivers, training parrots, standing on one leg, balancing
    spoons, breeding snails, building kites, building robots, collecting buttons, collecting
    feathers, collecting postcards, cooking soup, crossing rivers, decorating cakes, designing hats,
    digging holes, diving for coins, doing cartwheels, drawing maps, drinking cocoa, dyeing cloth,
    fixing clocks, flying paper planes, gazing at the moon, growing herbs, hiking uphill, ice
    skating, inventing games, kicking pebbles, learning tricks, listening to stories, looking after
    rabbits, making jam, making masks, making music, molding clay, painting fences, playing cards,
    playing marbles, playing the piano, playing tricks, practicing judo, printing posters, putting
    on plays, reading poems, riding buses, rowing boats, running races, singing in a choir,
    sketching trees, sliding down banisters, spinning tops
""")
