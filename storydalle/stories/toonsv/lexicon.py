"""Words of captions for actions, hats, things and looks, by the world's words for them.

A predicate begins with the base of its verb, or has ``+`` before each verb. ``~`` before all: it has no progressive.
``{own}`` is the subject's his, her, its or their, ``{self}`` himself and so on, ``{whom}`` and ``{who}`` the other one,
``{whose}`` the other one's, ``{hat}`` and ``{thing}`` a new hat and a new thing, ``{the_hat}`` and ``{the_thing}`` ones
that are known. A word of one action, thing, hat, place or light occurs in no phrase for another.
"""


def phrases(text: str) -> tuple[str, ...]:
    """Return the phrases of a list, parted by commas or by ends of lines."""
    return tuple(phrase.strip() for line in text.splitlines() for phrase in line.split(",") if phrase.strip())


ACTION_WORDS = {
    "waves": phrases(
        """wave, wave hello, wave hi, wave a hand, wave both hands, wave with both arms, wave {own} arm
        say hello with a wave, give a friendly wave, give a little wave, give a big wave, wave and +wave
        greet with a wave, lift a hand to wave, raise {own} hand to wave, wave at the sky, wave in the air
        stop to wave, wave as hard as can be, do a little wave, wave to the birds, wave at the reader"""
    ),
    "jumps": phrases(
        """jump, jump up, jump up high, jump up and down, jump for joy, jump around, jump about, hop, hop about
        hop up and down, hop around, hop on one leg, leap, leap into the air, leap up, leap about, bounce
        bounce up and down, bounce around, spring into the air, spring up, do a big jump, do a jump, do a somersault
        take a big leap, take a huge jump, make a great leap, jump over a stone, jump over a puddle, skip and +hop
        jump as high as can be, hop like a kangaroo"""
    ),
    "sits": phrases(
        """sit, sit down, sit there, sit around, sit still, sit quietly, take a seat, have a seat, have a sit
        sit down to rest, sit on the ground, sit down on the ground, sit and +think, sit and +watch, ~be seated
        squat, squat down, crouch, crouch down, plop down, settle down, sit down for a while
        have a rest on the ground, perch on a stone, sit cross-legged, rest {own} legs, ~plonk down"""
    ),
    "sleeps": phrases(
        """sleep, sleep, fall asleep, ~be asleep, ~be fast asleep, ~be sound asleep, take a nap, have a nap, nap
        snooze, have a snooze, doze, doze off, nod off, drift off to sleep, drift off, snore, snore softly, slumber
        go to sleep, sleep like a log, sleep tight, sleep soundly, lie down to sleep, lie asleep
        close {own} eyes and +sleep, take a little nap, curl up and +sleep, have a lie-down, sleep on the ground
        catch some sleep, dream, have sweet dreams, dream of cake"""
    ),
    "runs": phrases(
        """run, run, run fast, run around, run about, run along, run like the wind, run in circles, run to keep warm
        race, race along, race around, dash, dash along, dash about, sprint, sprint along, rush, rush along, jog
        jog along, hurry, hurry along, speed along, zoom around, zoom along, gallop, gallop along, scurry
        scurry along, scamper, scamper about, trot along, go for a run, go for a jog, run a race, bolt along
        charge along, chase a butterfly, chase the wind, run as fast as can be, run to and fro"""
    ),
    "dances": phrases(
        """dance, dance, dance around, dance about, do a dance, do a little dance, do a happy dance, do a silly dance
        dance to the music, move to the music, sway to the music, twirl, twirl around, twirl and +dance, boogie
        waltz, waltz around, waltz about, spin to the music, dance a jig, dance a waltz, dance the tango
        have a little dance, show a few dance steps, do a pirouette, do the twist, wiggle to the beat
        move to the beat, groove, have a boogie"""
    ),
    "cries": phrases(
        """cry, cry, weep, sob, sob loudly, sob and +sob, weep bitterly, cry {own} eyes out, cry out loud, bawl
        burst into tears, ~be in tears, shed a tear, shed a few tears, shed big tears, wail, whimper, blubber
        sniffle, cry like a baby, have a good cry, have a little cry, ~start to cry, ~start crying, break down crying
        ~have tears in {own} eyes, weep a little, cry big tears, break into sobs, cry a lot, have a weep, howl"""
    ),
    "cheers": phrases(
        """cheer, cheer, cheer loudly, cheer out loud, cheer for joy, shout hooray, shout hurray, yell hooray
        cry hooray, celebrate, celebrate loudly, shout for joy, yell with joy, shout yippee, shout with delight
        whoop, whoop for joy, whoop with joy, give a cheer, give a loud cheer, give three cheers, let out a cheer
        throw {own} arms up in joy, throw both arms up in joy, clap and +cheer, cheer and +clap, rejoice, applaud
        clap, clap {own} hands, cheer with all {own} might, let out a whoop"""
    ),
}
MANNERS = {
    "waves": phrases("happily, wildly, merrily, gently, politely, cheerfully, slowly, with a smile, eagerly"),
    "jumps": phrases("happily, wildly, merrily, again and again, with glee, eagerly, three times, nonstop"),
    "sits": phrases("quietly, calmly, patiently, comfortably, happily, without a sound, for a bit, lazily"),
    "sleeps": phrases("quietly, peacefully, deeply, soundly, like a baby, without a care, calmly, a little"),
    "runs": phrases(
        """quickly, fast, very fast, happily, wildly, at full speed, without stopping, as fast as possible"""
    ),
    "dances": phrases("happily, wildly, gracefully, merrily, with glee, nonstop, slowly, joyfully, beautifully"),
    "cries": phrases("sadly, bitterly, quietly, softly, for a while, so hard, a lot, miserably, all the time"),
    "cheers": phrases("happily, wildly, loudly, with glee, at the top of the voice, merrily, proudly, nonstop"),
}
IDLE = phrases(
    """~be there, ~be here, ~be there too, ~be here too, ~be around, ~be around too, look around, smile
    ~be happy to be here, watch, watch quietly, wait, wait a bit, stand there, just +stand there, look on, listen
    ~be with us, hang out, hum a song, hum, think hard, wonder, grin, giggle, laugh, stay close, walk about
    stroll around, play, play a little, ~be in a good mood, ~feel fine, ~have fun, ~have an idea, sing a song, chat
    look up, ~be near, ~be curious, whisper something, enjoy the view, ~feel at ease, stand around"""
)
STAYS = phrases("stay, remain, stay there, ~be still there, stay here, watch, look on, wait, stand there, keep still")
ALONE = phrases("alone, all alone, on {own} own, by {self}, with nobody else around, with nobody there, quite alone")
GOES_ON = phrases(
    """go on, keep going, carry on, ~do the same again, go on as before, carry on as before, ~do the same as before
    continue, continue as before, ~do not stop, ~be not done yet, keep on, do that again, do that once more"""
)
ARRIVES = phrases(
    """come along, come, arrive, show up, turn up, come over, appear, drop by, come by, drop in, walk up
    come walking up, come to play, pop up, come to say hello, come to visit, join in, come too, ~be here too now
    walk in, stroll up, stop by, come for a visit, pop in, come closer"""
)
JOINS = phrases(
    """join {whom}, come to {whom}, meet {whom}, walk up to {whom}, come to see {whom}, visit {whom}
    come over to {whom}, come along to {whom}, drop in on {whom}, meet up with {whom}"""
)
COMES_BACK = phrases(
    """come back, return, ~be back, turn up again, show up again, reappear, come again, ~be here again, ~be there again
    come back at last, come back too, ~be back again, drop by again, arrive again, appear again, ~be with us again"""
)
REJOINS = phrases("join {whom} again, come back to {whom}, return to {whom}, ~be back with {whom}, meet {whom} again")
LEAVES = phrases(
    """leave, go away, walk away, wander off, head off, slip away, disappear, ~have to go, ~have to leave, go off alone
    say goodbye and +leave, walk off, ~be off, vanish, say bye and +go, depart, sneak away
    go elsewhere, stroll off"""
)
IS_AWAY = phrases(
    """~be not there, ~be not here, ~be away, ~be missing, ~be absent, ~be gone, stay behind, ~be not around
    ~be nowhere to be seen, ~be not with us, ~be somewhere else, ~be not here today, ~be far away, ~be still away
    ~be still gone, ~be out of sight"""
)
PUTS_ON = phrases(
    """put on {hat}, put {hat} on, try on {hat}, try {hat} on, pop on {hat}, slip on {hat}, get {hat}
    find {hat} to wear, pull on {hat}, ~now +wear {hat}, ~now +have {hat} on, ~wear {hat} now, put on {hat}
    choose {hat}, get to wear {hat}, place {hat} on {own} head, set {hat} on {own} head, dress up in {hat}
    pop {hat} on {own} head, buy {hat} to wear, slip {hat} on"""
)
TAKES_OFF = phrases(
    """take off {the_hat}, take {the_hat} off, remove {the_hat}, lose {the_hat}, put {the_hat} away, take off {the_hat}
    pull off {the_hat}, pull {the_hat} off, slip off {the_hat}, ~no longer +wear {the_hat}, throw {the_hat} away
    ~do not wear {the_hat} any more, hang {the_hat} up, get rid of {the_hat}, lift {the_hat} off {own} head"""
)
GIVES_HAT = phrases(
    """give {the_hat} to {whom}, give {whom} {the_hat}, pass {the_hat} to {whom}, pass {the_hat} on to {whom}
    hand {the_hat} to {whom}, hand {whom} {the_hat}, lend {whom} {the_hat}, lend {the_hat} to {whom}
    put {the_hat} on {whom}, let {whom} have {the_hat}, let {whom} wear {the_hat}, offer {the_hat} to {whom}
    leave {the_hat} to {whom}, hand {the_hat} over to {whom}"""
)
GETS_HAT = phrases(
    """get {whose_hat}, take {whose_hat}, borrow {whose_hat}, get {the_hat} from {who}, take {the_hat} from {who}
    receive {the_hat} from {who}, ~now +wear {whose_hat}, snatch {whose_hat}, put on {whose_hat}, try on {whose_hat}"""
)
TAKES_UP = phrases(
    """pick up {thing}, take {thing}, find {thing}, get {thing}, grab {thing}, hold {thing}, hold up {thing}
    fetch {thing}, ~have {thing}, bring {thing}, bring along {thing}, carry {thing}, hold {thing}, pick {thing} up
    ~have {thing} now, ~now +hold {thing}, pull out {thing}, discover {thing}, show off {thing}, lift up {thing}
    come across {thing}, play with {thing}, clutch {thing}, ~have {thing} in {own} hand, ~own {thing} now
    bring {thing} along"""
)
PUTS_DOWN = phrases(
    """put down {the_thing}, put {the_thing} down, drop {the_thing}, lose {the_thing}, let go of {the_thing}
    throw {the_thing} away, leave {the_thing} behind, lay down {the_thing}, lay {the_thing} down
    put {the_thing} away, set down {the_thing}, ~no longer +hold {the_thing}, ~do not have {the_thing} any more
    let {the_thing} go, throw away {the_thing}, get rid of {the_thing}, put {the_thing} aside"""
)
GIVES_THING = phrases(
    """give {the_thing} to {whom}, give {whom} {the_thing}, pass {the_thing} to {whom}, pass {whom} {the_thing}
    hand {the_thing} to {whom}, hand {whom} {the_thing}, let {whom} have {the_thing}
    hand {the_thing} over to {whom}, offer {the_thing} to {whom}, bring {whom} {the_thing}, lend {whom} {the_thing}
    let {whom} hold {the_thing}, pass {the_thing} on to {whom}, leave {the_thing} to {whom}"""
)
GETS_THING = phrases(
    """get {whose_thing}, take {whose_thing}, borrow {whose_thing}, get {the_thing} from {who}
    take {the_thing} from {who}, receive {the_thing} from {who}, ~now +hold {whose_thing}, ~now +have {whose_thing}
    snatch {whose_thing}, ~be allowed to hold {whose_thing}, accept {the_thing} from {who}"""
)
SWAPS_WITH = phrases("swap {kind} with {whom}, trade {kind} with {whom}, exchange {kind} with {whom}")
SWAPS = phrases("swap {kind}, trade {kind}, exchange {kind}, swap {kind} with each other, switch {kind}")
WEARS = phrases("~wear {hat}, ~have {hat} on, ~have {hat}, ~be in {hat}, wear {hat}")
HOLDS = phrases("hold {thing}, ~have {thing}, carry {thing}, ~have {thing} in {own} hand")
NO_HAT = phrases("~wear no hat, ~have no hat, ~have no hat on, ~be without a hat, ~be bareheaded, ~do not wear a hat")
NO_THING = phrases("~hold nothing, ~have nothing in {own} hands, ~be empty-handed, ~have empty hands, ~carry nothing")
ADJUNCTS = {  # what can be said with a few words beside another predicate
    "takes_up": phrases("with {thing}, with {thing} in {own} hand, with {thing} in hand, carrying {thing}"),
    "holds": phrases("with {thing}, with {thing} in {own} hand, with {thing} in hand, carrying {thing}"),
    "puts_on": phrases("in {hat}, wearing {hat}, with {hat} on"),
    "wears": phrases("in {hat}, wearing {hat}, with {hat} on"),
    "wears nothing": phrases("without a hat, without any hat, bareheaded, with no hat on"),
    "holds nothing": phrases("without anything in {own} hands, empty-handed, with empty hands, holding nothing"),
}
HAT_NOUNS = phrases("hat, hat, hat, hat, hat, cap, party hat, cone hat, bobble hat, woolly hat, pompom hat")
HAT_COLORS = {
    "red": phrases("red, red, red, bright red, scarlet, cherry red, crimson"),
    "blue": phrases("blue, blue, blue, bright blue, dark blue, deep blue, royal blue"),
    "green": phrases("green, green, green, bright green, grass-green, emerald, dark green"),
    "yellow": phrases("yellow, yellow, yellow, bright yellow, lemon yellow, golden, canary yellow"),
}
NEW = phrases("new, nice, funny, pretty, silly, little, big, lovely, warm, fine, pointy, fancy, beautiful, cool")
THINGS = {
    "ball": phrases("ball, ball, ball, ball, toy ball, football, rubber ball, round ball, soccer ball"),
    "balloon": phrases("balloon, balloon, balloon, balloon, party balloon, air balloon, shiny balloon, toy balloon"),
    "flower": phrases("flower, flower, flower, flower, rose, daisy, tulip, fresh flower, blossom, wild flower"),
    "flag": phrases("flag, flag, flag, flag, pennant, banner, paper flag, small flag, bright flag"),
    "umbrella": phrases("umbrella, umbrella, umbrella, umbrella, parasol, brolly, open umbrella, striped umbrella"),
    "lantern": phrases(
        "lantern, lantern, lantern, lantern, lamp, paper lantern, glowing lantern, little lamp, oil lamp"
    ),
}
THING_NEW = phrases("big, little, nice, pretty, new, old, lovely, bright, tiny, fine, huge, colourful, beautiful")
SPECIES_WORDS = {
    "chick": phrases("chick, chick, chick, chicken, birdie, baby bird"),
    "bunny": phrases("bunny, bunny, bunny, rabbit, hare"),
    "bear": phrases("bear, bear, bear, teddy bear, brown bear"),
    "frog": phrases("frog, frog, frog, froggy"),
    "cat": phrases("cat, cat, cat, kitten, kitty, pussycat"),
    "fox": phrases("fox, fox, fox, young fox"),
    "penguin": phrases("penguin, penguin, penguin, baby penguin"),
    "mouse": phrases("mouse, mouse, mouse, tiny mouse"),
    "elephant": phrases("elephant, elephant, elephant, baby elephant"),
}
LITTLE = phrases("little, small, dear, good, sweet, brave, young, cute")
ACCESSORY_WORDS = {
    "antennae": phrases("antennae, two antennae, feelers"),
    "horns": phrases("horns, two horns, little horns"),
    "glasses": phrases("glasses, a pair of glasses, spectacles"),
    "scarf": phrases("a scarf, a warm scarf, a woolly scarf"),
    "bow": phrases("a bow, a little bow, a ribbon bow"),
    "sprout": phrases("a sprout, a little sprout, a leafy sprout"),
}
SHAPE_WORDS = {
    "square": phrases("square, square, box"),
    "triangle": phrases("triangle"),
    "star": phrases("star"),
    "heart": phrases("heart"),
    "diamond": phrases("diamond, rhombus"),
    "cloud": phrases("cloud, little cloud"),
}
