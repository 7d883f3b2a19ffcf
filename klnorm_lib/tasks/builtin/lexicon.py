"""Words and what they mean: synonyms, kinds, opposites. Every written form belongs to one concept only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """A meaning with its interchangeable ``forms``, its more general ``parent`` and its ``opposite`` (names)."""

    name: str
    forms: tuple[str, ...]
    parent: str | None = None
    opposite: str | None = None
    role: str = ""


# One line per kind: "kind forms: member forms; member forms; ...". Forms of one concept are joined by "=".
_PEOPLE = """
medic=medical worker: doctor=physician; nurse; surgeon; dentist
musician: pianist; violinist=fiddler; singer=vocalist; drummer=percussionist; guitarist
scientist=researcher: chemist; biologist; astronomer=stargazer; physicist
artist: sculptor=carver; painter; potter=ceramist
athlete=sportsperson: boxer=prizefighter; swimmer; runner; gymnast=acrobat; goalkeeper=goalie
writer=author: novelist; poet; journalist=reporter; playwright=dramatist
criminal=lawbreaker: thief=robber; smuggler; forger=counterfeiter; pirate=buccaneer
official=functionary: mayor; ambassador=envoy; judge=magistrate; inspector
teacher=educator: professor; tutor=coach
relative: uncle; grandmother=grandma; grandfather=grandpa; cousin; mother=mum; father=dad
person: lawyer=attorney; child=kid; policeman=cop; actor=performer; boss=manager; soldier=trooper; cook=chef;
  student=pupil; pilot=aviator; driver=chauffeur; farmer=grower; sailor=seaman; baker; tailor=dressmaker; neighbour;
  butcher; carpenter=woodworker; hunter=trapper; shopkeeper=storekeeper; servant=attendant; guard=sentry;
  barber=hairdresser; monk=friar; clown=jester; tourist=sightseer; hiker=rambler; detective=sleuth; widow; orphan
"""

_THINGS = """
dog=hound: poodle; terrier; spaniel; greyhound
bird: parrot; canary; falcon; pigeon=dove
car=automobile: limousine=limo; convertible=cabriolet; taxi=cab
boat=vessel: canoe; ferry; yacht; raft
flower=blossom: rose; tulip; lily; daisy
fruit: apple; pear; melon; lemon
coat=overcoat: raincoat=mackintosh; parka=anorak
jewel=gem: ruby; diamond; emerald; pearl
musical instrument: guitar; violin=fiddle; trumpet=bugle; flute
book: novel; dictionary=wordbook; cookbook; atlas
tool: hammer=mallet; saw; wrench=spanner; drill
bag=satchel: suitcase; backpack=rucksack; handbag=purse
weapon: sword=sabre; pistol=handgun; spear=lance
picture=image: photograph=photo; portrait=likeness; sketch=drawing
piece of furniture=furnishing: sofa=couch; wardrobe=closet; stool; desk; armchair
hat: beret; helmet; bonnet; turban
object=item: gift=present; letter; carpet=rug; stone=rock; mirror=looking glass; bicycle=bike; lorry=truck; coin;
  ladder; lamp=lantern; basket=hamper; bucket=pail; rope=cord; clock=timepiece; bottle=flask; toy=plaything;
  computer; telescope=spyglass; blanket; candle; kite; map=chart; statue; pill=tablet; cushion=pillow
"""

# past=participle unless written base/past/participle; "-" separates a verb from its opposite
_THING_VERBS = """
buy/bought=purchase - sell/sold
repair=fix=mend - break/broke/broken=damage
find/found=discover - lose/lost=misplace
hide/hid/hidden=conceal - display=exhibit
examine=inspect - overlook=disregard
choose/chose/chosen=select - reject=turn down/turned down
throw/threw/thrown=toss=hurl - catch/caught
clean=wash - soil=stain
lift=raise - lower
steal/stole/stolen=swipe - return=give back/gave back/given back
build/built=construct - destroy=demolish
accept=receive - refuse=decline
"""
_PERSON_VERBS = """
help=assist=aid - hinder=obstruct
praise=commend - criticise=condemn
love=adore - hate=detest=loathe
attack=assault - defend=protect
reward - punish=penalise
welcome=greet - snub=cold-shoulder
trust - distrust=mistrust
rescue=save - abandon=desert
free=liberate - arrest=detain
frighten=scare - calm=soothe
amuse=entertain - bore
hire=employ - fire=dismiss
phone=telephone - visit=call on/called on
encourage=cheer on/cheered on - discourage=dishearten
chase=pursue - dodge=evade
"""
_ACTS = """
walk/walked=go on foot/went on foot: stroll=amble; march; limp=hobble; wander=roam
run/ran/run=race: sprint=dash; jog
laugh: giggle=chuckle; cackle
cry=weep/wept: sob; whimper
speak/spoke/spoken=talk: whisper=murmur; shout=yell; lecture
sleep/slept=slumber: doze=nap
eat/ate/eaten: feast=banquet; snack=nibble
perform: dance; sing/sang/sung; juggle
"""

_PLACES = """
in France: in Paris=in the French capital; in Lyon; in Marseille
in Italy: in Rome=in the Italian capital; in Venice; in Naples
in Spain: in Madrid=in the Spanish capital; in Seville
in Japan: in Tokyo=in the Japanese capital; in Osaka
in Egypt: in Cairo=in the Egyptian capital; in Alexandria
in Germany: in Berlin=in the German capital; in Hamburg; in Munich
in Greece: in Athens=in the Greek capital; in Corinth
in Norway: in Oslo=in the Norwegian capital; in Bergen
in Kenya: in Nairobi=in the Kenyan capital; in Mombasa
in Canada: in Ottawa=in the Canadian capital; in Toronto
indoors=inside a building: in the cellar=in the basement; in the attic=in the loft; in the kitchen; in the library;
  in the museum; in the shop=in the store; in the chapel
outdoors=in the open air: in the forest=in the woods; on the beach=on the seashore; by the river=by the stream;
  in the garden=in the backyard; on the hill; at the harbour=at the port; in the street=in the road; in the meadow
"""
_TIMES = """
in summer=in the warm season: in July; in August
in winter=in the cold season: in January; in February
in spring: in April; in May
in autumn: in October; in November
at the weekend=on a weekend: on Saturday; on Sunday
on a weekday=on a working day: on Monday; on Tuesday; on Thursday
in the morning: at dawn=at sunrise; at breakfast
in the evening: at dusk=at sunset; at supper=at dinner
"""


def _kinds(table: str, role: str, root: str | None = None) -> dict[str, Concept]:
    found: dict[str, Concept] = {}
    for line in table.replace("\n  ", " ").strip().splitlines():
        head, _, members = line.partition(":")
        forms = tuple(part.strip() for part in head.split("="))
        kind = f"{role}:{forms[0]}"
        found[kind] = Concept(kind, forms, None if forms[0] == root or root is None else f"{role}:{root}", role=role)
        for member in members.split(";"):
            forms = tuple(part.strip() for part in member.split("="))
            found[f"{role}:{forms[0]}"] = Concept(f"{role}:{forms[0]}", forms, kind, role=role)
    return found


def _opposites(table: str, role: str) -> dict[str, Concept]:
    found: dict[str, Concept] = {}
    for line in table.strip().splitlines():
        sides = [tuple(part.strip() for part in side.split("=")) for side in line.split(" - ")]
        keys = [f"{role}:{base(forms[0])}" for forms in sides]
        for forms, name, other in zip(sides, keys, keys[::-1], strict=True):
            found[name] = Concept(name, forms, opposite=other, role=role)
    return found


def base(form: str) -> str:
    """The infinitive of a written verb: "buy/bought" -> "buy"."""
    return form.split("/")[0]


def past(form: str) -> str:
    """The past tense of a written verb."""
    parts = form.split("/")
    return parts[1] if len(parts) > 1 else _ed(parts[0])


def participle(form: str) -> str:
    """The past participle of a written verb."""
    parts = form.split("/")
    return parts[2] if len(parts) > 2 else past(form)


_DOUBLED = {"jog": "jogged", "swap": "swapped", "nap": "napped", "sob": "sobbed", "hum": "hummed"}


def _ed(word: str) -> str:
    if word in _DOUBLED:
        return _DOUBLED[word]
    if word.endswith("e"):
        return word + "d"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ied"
    return word + "ed"


PEOPLE = _kinds(_PEOPLE, "person", "person")
THINGS = _kinds(_THINGS, "thing", "object")
PLACES = _kinds(_PLACES, "place")
TIMES = _kinds(_TIMES, "time")
ACTS = {
    f"act:{base(c.forms[0])}": Concept(
        f"act:{base(c.forms[0])}",
        c.forms,
        None if c.parent is None else f"act:{base(c.parent.partition(':')[2])}",
        role="act",
    )
    for c in _kinds(_ACTS, "act").values()
}
THING_VERBS = _opposites(_THING_VERBS, "do")
PERSON_VERBS = _opposites(_PERSON_VERBS, "to")
CONCEPTS: dict[str, Concept] = {**PEOPLE, **THINGS, **PLACES, **TIMES, **ACTS, **THING_VERBS, **PERSON_VERBS}
CHILDREN: dict[str, tuple[str, ...]] = {
    name: tuple(c.name for c in CONCEPTS.values() if c.parent == name) for name in CONCEPTS
}
GIVEN_NAMES = (
    "Maria", "Omar", "Lena", "Viktor", "Amina", "Hugo", "Priya", "Jonas", "Clara", "Mateo", "Yuki", "Samuel",
    "Ingrid", "Tariq", "Elena", "Felix", "Noor", "Daniel", "Ruth", "Pablo", "Greta", "Kofi", "Anna", "Luca",
)  # fmt: skip


def is_a(name: str, general: str) -> bool:
    """Whether the concept is the general one or a kind of it."""
    while name is not None:
        if name == general:
            return True
        name = CONCEPTS[name].parent
    return False


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
