"""The texts that every family embeds, and an instruction that callers give verbatim."""

TEXTS = {
    "english": "The service reads a file and returns one vector for every line.",
    "emoji": "Great work 🎉 thanks 👩‍🚀!",
    "cjk": "機械学習は文章をベクトルに変える。今天天气很好。",
    # Longer than the maximum length of every family here.
    "long": " ".join(
        f"In chapter {number} the function returns the next object of the list." for number in range(1, 25)
    ),
    "blanks": "  two blanks before, a tab and a blank after\t ",
    "specials": "Do <|endoftext|>, </s> and <eos> end a text?",
}

# Given as `prompt=`, which goes before the text verbatim.
INSTRUCTION = "Instruct: Find the paragraph that answers the question\nQuery: "
WITH_INSTRUCTION = ("english", "blanks")
