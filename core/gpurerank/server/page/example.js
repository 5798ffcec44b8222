// What stands on the page before anybody pasted anything. One passage is too long for one window and
// has its answer in the second half: vectors, which end before it, put it last; its best window, first.

export const QUESTIONS = {
  own: [
    "How many people have walked on the Moon?",
    "Why did the rocket's engines shake?",
    "Who stayed behind while others landed?",
  ],
  demo: [
    "compare two files and show the differences",
    "run a command and capture its output",
    "unpack a zip archive",
    "how do I parse command line arguments",
  ],
};

/** Candidates of a cascade: fewer than there are passages, or it would read them all. */
export const CANDIDATES = { own: 5, demo: 20 };

const PASSAGES = [
  [
    "Full moons",
    "A full moon comes round every twenty-nine and a half days. The last one of a year is",
    "called the cold moon.",
  ],
  [
    "The moonwalk",
    "A dance step in which the dancer seems to walk forward while sliding back. Michael Jackson",
    "showed it on television in 1983.",
  ],
  [
    "Valentina Tereshkova",
    "She was the first woman in space and circled the Earth forty-eight times in June 1963,",
    "alone in her capsule.",
  ],
  [
    "Michael Collins",
    "He stayed in orbit around the Moon while the two others went down. He has been called the",
    "loneliest man since Adam.",
  ],
  [
    "Mirrors",
    "The Moon draws away from the Earth by 3.8 centimetres a year, measured with mirrors that",
    "astronauts set up there.",
  ],
  [
    "A rocket and what it carried",
    "The team in Huntsville had built rockets for twenty years when the largest of them stood on",
    "its pad. Three ways had been weighed. A single giant could fly straight to the surface and",
    "back; two smaller ones could meet in orbit around the Earth; or a light lander could leave",
    "its mother ship and come back to it. The third way, argued for by John Houbolt against",
    "nearly everybody, needed the least fuel and was chosen in the summer of 1962. What it asked",
    "for was a rocket twenty times as strong as any that had flown. The Saturn V was 110 metres",
    "tall, weighed 2,900 tonnes, and burned fifteen tonnes of kerosene and oxygen a second at",
    "take-off. Its first stage was made in New Orleans and came to the Cape by barge; its second",
    "was made in California and came through the Panama canal; the third was small enough for an",
    "aeroplane with a swollen back that was built for nothing else. It flew thirteen times and",
    "never lost its load. The five engines of the first stage gave the most trouble. Their flames",
    "swirled, and a flame that swirls shakes an engine to pieces in less than a second. Nobody",
    "could compute it, so the engineers set off small bombs in the running engines and changed",
    "the plate with the nozzles until the flame calmed down by itself. It took two thousand",
    "firings, each of which could be heard in the next county and broke windows there; the",
    "windows were paid for without a word. And what did the rocket carry? Twelve people have",
    "walked on the Moon. On each of six landings two of a crew of three went down to the surface",
    "and walked there, while the third waited in orbit. Armstrong and Aldrin walked on the Moon",
    "for two hours and a half in July 1969, never further from their lander than a football pitch",
    "is long. Conrad and Bean walked to a probe that had stood on the Moon for two years and a",
    "half, and cut off its camera. Shepard and Mitchell walked up the side of a crater, pulling a",
    "cart, and turned back a few steps below the rim without knowing it. Scott and Irwin, Young",
    "and Duke, Cernan and Schmitt had a car with them, and were told to drive no further than",
    "they could walk back; they were outside for up to seven hours a day, three days in a row.",
    "Walking on the Moon had to be learned: people weigh a sixth there, the suit was as heavy as",
    "its wearer, and most of them hopped like a kangaroo or loped from foot to foot until they",
    "fell. The twelve people who walked on the Moon were from thirty-six to forty-seven years",
    "old; all were men, all Americans, and eleven of the twelve had come as pilots. Schmitt, the",
    "last of them to step on the Moon, had come as a geologist. Shepard hit two golf balls, Duke",
    "left a picture of his family in the dust, and together the twelve people brought home 382",
    "kilograms of rock. In all they walked on the Moon for eighty hours. Twenty-four people have",
    "flown to the Moon, three of them twice, and half of those people have walked on it, none of",
    "them on two landings. How many people have walked on the Moon since December 1972? None. The",
    "footprints of the twelve are still there, as no wind blows them away.",
  ],
  [
    "The walkers",
    "Twelve people have set foot on the lunar surface, all of them between 1969 and 1972.",
  ],
  [
    "Neil Armstrong",
    "He was the first to walk on the Moon, on 20 July 1969. Buzz Aldrin followed him down the",
    "ladder nineteen minutes later.",
  ],
  [
    "Crew",
    "Seven people live on the space station at most times, some for half a year, some for",
    "longer.",
  ],
  [
    "Eugene Cernan",
    "He climbed the ladder of the lunar module on 14 December 1972 and left his footprints",
    "behind him.",
  ],
  [
    "Lunokhod 1",
    "The first rover on the Moon drove ten kilometres in eleven months, steered from the Crimea",
    "by a crew of five.",
  ],
];

export const TEXT = PASSAGES.map(([title, ...lines]) => `${title}\n${lines.join(" ")}`).join("\n\n");
