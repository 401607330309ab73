"""Words of captions for settings and for the light of day.

A place is told by three parts: where (``in``), where to (``to``, ``into``), and the place itself. An empty preposition
stands for itself: ``downtown`` is both where and where to.
"""

from storydalle.stories.toonsv.lexicon import phrases

PLACES = {
    setting: tuple((*part.split("/"),) for part in phrases(text))
    for setting, text in {
        "meadow": """
            in/to/the meadow, in/to/the meadow, in/to/the meadow, in/to/a meadow, in/to/a flowery meadow
            in/into/a grassy field, in/into/the field, on/onto/the grass, in/into/the grass, in/into/the tall grass
            in/to/the green meadow, in/to/the fields, in/to/the park, in/into/the garden, in/to/a wide meadow
            in/to/the countryside, in/to/the pasture, on/to/the lawn""",
        "beach": """
            at/to/the beach, at/to/the beach, on/to/the beach, on/to/the sandy beach, by/to/the sea
            at/to/the seaside, at/to/the seashore, on/to/the shore, by/to/the ocean, at/to/the ocean
            by/to/the waves, on/to/the coast, at/to/a beach, near/to/the water, by/to/the water, by/to/the blue sea
            at/to/the sea""",
        "forest": """
            in/into/the forest, in/to/the forest, in/into/the woods, in/to/the woods, among/into/the trees
            in/into/the wood, deep in/deep into/the forest, under/under/the trees, in/into/a forest
            in/into/a dark forest, between/between/the trees, in/into/the green forest, in/into/the deep woods
            under/to/the fir trees""",
        "snow": """
            in/into/the snow, in/into/the snow, in/into/the cold snow, on/to/a snowy hill, out in/out into/the snow
            in/to/the snowy mountains, in/into/the deep snow, in/to/a snowy land, on/onto/the ice
            at/to/the North Pole, in/into/the white snow, in/to/the winter wonderland, in/to/a snowy valley
            in/to/the snowy hills, on/to/the ski slope""",
        "desert": """
            in/into/the desert, in/to/the desert, in/into/the hot desert, among/to/the dunes, in/to/the dunes
            in/to/a desert, among/to/the cactuses, at/to/the pyramid, by/to/the pyramids, in/into/the dry desert
            between/between/the cactuses, near/to/a cactus, in/into/the Sahara, in/into/the sandy desert""",
        "city": """
            in/to/the city, in/to/the city, in/into/town, in/into/the big city, on/onto/a busy street
            in/to/the town, //downtown, on/onto/the street, in/into/the streets, among/among/the skyscrapers
            in/to/a big town, in/to/the city centre, between/between/the tall buildings, in/to/a city
            among/among/the houses""",
        "kitchen": """
            in/to/the kitchen, in/into/the kitchen, in/into/a kitchen, in/into/a cosy kitchen, by/to/the stove
            in/into/the warm kitchen, in/to/the tiled kitchen, near/to/the oven, by/to/the fridge
            by/to/the kitchen table, on/onto/the kitchen floor, at/to/the kitchen counter""",
        "moon": """
            on/to/the moon, on/to/the moon, up on/up to/the moon, on/to/the far moon, among/among/the moon craters
            far away on/far away to/the moon, in/into/outer space, in/into/space, up in/up into/space
            on/to/the surface of the moon, on/onto/the lunar rocks, on/to/the grey moon""",
    }.items()
}
LIGHTS = {  # beside a clause
    "day": phrases(
        """by day, in daylight, in the morning, in broad daylight, at noon, in the sunshine, under the midday sun
        in the early morning, on a bright day, on a sunny day, in the afternoon, by daylight, during the day
        at midday, in the daytime, on a sunny morning, one morning, in bright light of day"""
    ),
    "dusk": phrases(
        """at dusk, at sunset, in the evening, in the twilight, in the evening light, one evening, at twilight
        in the late evening, towards evening, that evening, this evening, in the glow of the sunset, by evening"""
    ),
    "night": phrases(
        """at night, by night, in the dark, under the stars, at midnight, in the middle of the night, late at night
        in the moonlight, one night, in the darkness, in the night, under a starry sky, by moonlight, that night
        during the night, in the black of night"""
    ),
}
LIGHT_TURNS = {  # clauses that tell a new light
    "day": phrases(
        """the sun +rise, the sun +come up, morning +come, a new day +begin, the sun +come out, ~it +be day
        ~it +be morning, it +get light, ~the sun +be up, a new morning +begin, day +break, ~it +be daytime
        the sun +start to shine, ~it +be morning again, ~it +be broad daylight"""
    ),
    "dusk": phrases(
        """evening +come, the sun +set, the sun +go down, dusk +fall, ~it +be evening, the sun +sink, it +turn to dusk
        ~it +be sunset, ~it +be dusk, twilight +fall, the sky +turn pink with dusk, evening +fall, the sun +dip low
        ~it +be almost evening"""
    ),
    "night": phrases(
        """night +fall, it +get dark, ~it +be night, the stars +come out, night +come, ~it +be dark, darkness +fall
        it +grow dark, ~it +be nighttime, ~it +be midnight, it +become night, the sky +go dark, ~it +be pitch-dark
        ~it +be late at night"""
    ),
}
