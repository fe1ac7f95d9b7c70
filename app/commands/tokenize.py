"""`l2v tokenize`."""

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.choice import ChoiceSettings
from l2v.app.commands.output import show


class Tokenize(ChoiceSettings):
    """Show the tokens that the model gets for a text, their ids, and which of them are pooled.

    Examples:
        l2v tokenize "the cat sits on the mat"
        l2v tokenize "where is the cat?" --instruction "Retrieve passages that answer:"
    """

    text: CliPositionalArg[str] = Field(description="Text to tokenize")
    instruction: str | None = Field(None, description="Instruction for the text; default: the model's default prompt")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        self.announce()
        encoder = self.load_chosen()
        from l2v.app.engine.profile import Profile
        from l2v.app.engine.prompts import Prompts
        from l2v.models import Input

        instruction = Prompts.of(Profile.of(encoder)).default() if self.instruction is None else self.instruction
        (encoding,) = encoder.tokenize([Input(self.text, instruction)])
        token, first_pooled = encoder.tokenization.tokenizer.id_to_token, len(encoding) - encoding.pooled
        tokens = [
            {"position": position, "id": id_, "token": token(id_), "pooled": position >= first_pooled}
            for position, id_ in enumerate(encoding.ids)
        ]
        rows = [(each["position"], each["id"], each["token"], "yes" if each["pooled"] else "") for each in tokens]
        caption = f"{len(tokens)} tokens, {encoding.pooled} of them pooled"
        show(tokens, self.as_json, ("position", "id", "token", "pooled"), rows, caption)
