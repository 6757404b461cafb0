"""Words and sentences without numbers that synthetic voices speak; training and test apart.

In: nothing. Out: tuples of text.
"""

TRAIN_WORDS = tuple(
    "apple table window water music people river garden mother father brother sister doctor "
    "teacher school animal flower winter summer yellow purple orange silver golden castle bridge "
    "planet rocket engine pencil paper letter number answer question morning evening dinner "
    "breakfast coffee sugar butter cheese bread potato tomato carrot onion chicken rabbit horse "
    "monkey tiger parrot turtle spider beetle mountain island desert forest thunder lightning "
    "rainbow shadow candle mirror pillow blanket carpet ladder hammer basket bottle kettle spoon "
    "hello goodbye please thanks sorry welcome maybe never always again over under inside outside "
    "yes no stop go wait look listen start end left right up down open close red blue green "
    "black white dog cat bird fish tree house car boat train plane sun moon star rain snow wind "
    "fire sand rock hill lake sea book phone chair door floor wall roof hand foot head heart "
    "fun run gun sock fox box stick mix fix live hive fine line sign mine late gate date weight "
    "shoe true more store shore hero arrow narrow pillar heaven lemon melon".split()
)
TEST_WORDS = tuple(
    "banana kitchen doctorate guitar piano violin camera camel donkey penguin dolphin elephant "
    "hospital library market museum station airport ticket jacket trousers button pocket umbrella "
    "scissors needle ribbon velvet marble copper iron diamond crystal feather whistle blossom "
    "meadow valley canyon harbor lantern compass anchor ocean wave storm cloud frost mist dew "
    "bed cup plate knife fork soap towel brush comb lamp clock desk pen map key lock".split()
)
TRAIN_SENTENCES = (
    "The weather is lovely this morning.", "Please close the window before you leave.",
    "I would like a cup of tea with milk.", "Where did you put my keys?",
    "The children are playing in the garden.", "Can you tell me a story about dragons?",
    "She walked slowly along the empty beach.", "My brother works at the hospital.",
    "We should paint the kitchen wall yellow.", "Do you know how to play the guitar?",
    "The old bridge was closed after the storm.", "He never forgets a face.",
    "What is the capital of France?", "Let us meet at the station later.",
    "This soup needs a little more salt.", "The cat is sleeping under the table.",
    "Turn the lights off, please.", "How are you doing today?",
    "The train leaves in a moment.", "They are building a new library.",
    "It rained all night and the river rose.", "Your handwriting is very hard to read.",
    "Could you speak a bit louder?", "The bakery smells of fresh bread.",
    "I have never been to Australia.", "Put the books back on the shelf.",
    "Nobody knew the answer to that question.", "Our neighbours have a very loud dog.",
    "Thank you very much for your help.", "Let me think about it.",
    "The moon looks huge tonight.", "Is there any milk left in the fridge?",
    "That is exactly what I wanted to hear.", "Wait here until I come back.",
    "A quick walk in the park clears the mind.", "The museum is closed on Mondays.",
    "Play some music, please.", "My phone battery is almost empty.",
    "The farmer planted corn and beans.", "You can see the sea from this hill.",
)  # fmt: skip
TEST_SENTENCES = (
    "The engineer repaired the broken lamp.", "Would you like some more coffee?",
    "A small boat drifted across the lake.", "Our teacher told us a funny joke.",
    "The market opens early in the morning.", "Please remember to water the plants.",
    "It is getting cold outside.", "The violin needs new strings.",
    "He hid the letter under the pillow.", "Where is the nearest pharmacy?",
    "They danced until the sun came up.", "I lost my umbrella on the bus.",
    "Snow covered the whole valley.", "Her voice was calm and clear.",
    "Stop talking and listen carefully.", "The penguin slipped on the ice.",
    "My grandmother makes the best pancakes.", "Is this seat taken?",
    "We watched the clouds drift by.", "The printer is out of paper.",
)  # fmt: skip
FOREIGN = {
    "de": ("Guten Morgen, wie geht es dir?", "Das Wetter ist heute sehr schön.", "Straße",
           "Ich möchte bitte einen Kaffee.", "Schmetterling", "Danke", "Fenster",
           "Die Katze schläft."),
    "fr": ("Bonjour, comment allez-vous?", "Il fait très beau ce matin.", "Fenêtre", "Merci",
              "Je voudrais un café, s'il vous plaît.", "Papillon", "Maison"),
    "es": ("Buenos días, ¿cómo estás?", "Hace mucho calor hoy.", "Ventana", "Gracias", "Mariposa",
           "La casa está cerca del mar."),
    "it": ("Buongiorno, come stai?", "Finestra", "Grazie", "La luna è molto bella.", "Farfalla"),
    "pt-br": ("Bom dia, tudo bem?", "Janela", "Obrigado", "O mar está calmo."),
    "nl": ("Goedemorgen, hoe gaat het?", "Venster", "Dank je wel", "De hond slaapt."),
    "sv": ("God morgon, hur mår du?", "Tack", "Katten sover."),
    "pl": ("Dzień dobry, jak się masz?", "Okno", "Motyl", "Pies śpi."),
    "ru": ("Доброе утро, как дела?", "Окно", "Спасибо", "Кошка спит."),
    "fi": ("Hyvää huomenta", "Ikkuna", "Kissa nukkuu."),
    "tr": ("Günaydın, nasılsın?", "Pencere", "Kedi uyuyor."),
    "hu": ("Jó reggelt", "Ablak", "A macska alszik."),
}  # fmt: skip
