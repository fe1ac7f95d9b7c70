// The texts that the page starts with, in each mode.

export const EXAMPLES = {
  compare: {
    queries: {
      texts: ["the cat sits on the mat", "how do I reset my password?", "share prices fell on Monday", "a woman is cooking in the kitchen"],
      instruction: "Retrieve semantically similar text:",
    },
    documents: {
      texts: [
        "a small cat rests on the carpet",
        "to change your password, open the settings",
        "stock markets dropped on Monday",
        "a lady prepares dinner in the kitchen",
        "dogs are running through a field",
      ],
      instruction: "",
    },
  },
  search: {
    queries: { texts: ["I forgot my login"], instruction: "Given a question, retrieve passages that answer it:" },
    documents: {
      texts: [
        "You can change your password under Settings, Security.",
        "Orders ship within two working days.",
        "To cancel an order, open it and press Cancel.",
        "We refund the price within five days of the return.",
        "The warranty covers faults for two years.",
        "Parcels can be tracked with the number in our message.",
        "Invoices are sent by e-mail at the end of the month.",
        "Our support answers calls from nine to five.",
        "You may pay by card, bank transfer or PayPal.",
        "Delete your account under Settings, Privacy.",
      ],
      instruction: "",
    },
  },
};
