// What stands on the page before anybody pasted anything: the right answer rises, and one passage is
// too long for one window.

export const QUESTIONS = {
  own: [
    "How many people have walked on the Moon?",
    "Why did the rocket's engines shake?",
    "Who stayed behind while others landed?",
  ],
  demo: [
    "run a command and capture its output",
    "how do I parse command line arguments",
    "unpack a zip archive",
    "compare two files and show the differences",
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
    "The team in Huntsville had built rockets for twenty years when the largest of them stood",
    "on its pad. Three ways had been weighed. A single giant could fly straight to the surface",
    "and back; two smaller ones could meet in orbit around the Earth; or a light lander could",
    "leave its mother ship and come back to it. The third way, argued for by John Houbolt",
    "against nearly everybody, needed the least fuel and was chosen in the summer of 1962. What",
    "it asked for was a rocket twenty times as strong as any that had flown. The Saturn V was",
    "110 metres tall, weighed 2,900 tonnes, and burned fifteen tonnes of kerosene and oxygen a",
    "second at take-off. Its first stage was made in New Orleans and came to the Cape by barge;",
    "its second was made in California and came through the Panama canal; the third was small",
    "enough for an aeroplane with a swollen back that was built for nothing else. It flew",
    "thirteen times and never lost its load. The five engines of the first stage gave the most",
    "trouble. Their flames swirled, and a flame that swirls shakes an engine to pieces in less",
    "than a second. Nobody could compute it, so the engineers set off small bombs in the",
    "running engines and changed the plate with the nozzles until the flame calmed down by",
    "itself. It took two thousand firings, each of which could be heard in the next county and",
    "broke windows there; the windows were paid for without a word. The computer sat in a ring",
    "above the third stage. It had three copies of everything and took a vote where they",
    "disagreed. When lightning struck the second flight with a crew, the ring went on counting",
    "while the lamps in the cabin went out. The tanks were welded by hand, by people who had",
    "built boats before. A seam was a kilometre long in all, and a bubble in it the size of a",
    "pin's head was cut out and welded anew. The insulation of the second stage was glued on in",
    "panels that fell off, until somebody had the thought of spraying it; the idea came from a",
    "maker of surfboards. Some 400,000 people and 20,000 firms had a part in all this. The",
    "parts came by barge, by rail and by night, on roads that were closed for them, and every",
    "bolt had a paper that said who had turned it. What did the rocket carry in the end? Nine",
    "crews of three flew to the Moon on it, twenty-four people in all, as three of them went",
    "twice. How many people have been on the Moon itself? Twelve: on each of six landings two",
    "people went down to the surface of the Moon while a third waited in orbit. The twelve",
    "people who have walked on the Moon are Armstrong and Aldrin, Conrad and Bean, Shepard and",
    "Mitchell, Scott and Irwin, Young and Duke, Cernan and Schmitt. Nobody else has been on the",
    "Moon since 1972, and four of the twelve are alive. They brought 382 kilograms of rock home",
    "with them. Two rockets were left over. They lie in the open now, in Houston and in",
    "Huntsville, longer than the museums that were built beside them.",
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
