"""Embeds two texts with each third-party client; only the address differs from its usual use.

docs/clients.md shows this code, and tests/docs/test_clients.py runs that page.
"""

TEXTS = ["the cat sits on the mat", "stocks fell sharply"]
Vectors = list[list[float]]


def openai(url: str) -> Vectors:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    return [item.embedding for item in client.embeddings.create(model="demo", input=TEXTS).data]


def openai_instruction(url: str) -> Vectors:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    extra = {"instruction": "Retrieve similar text:"}
    return [item.embedding for item in client.embeddings.create(model="demo", input=TEXTS, extra_body=extra).data]


def cohere(url: str) -> Vectors:
    from cohere import ClientV2

    client = ClientV2(base_url=url, api_key="none")
    response = client.embed(model="demo", texts=TEXTS, input_type="search_document", embedding_types=["float"])
    return response.embeddings.float_


def langchain_openai(url: str) -> Vectors:
    from langchain_openai import OpenAIEmbeddings

    # With the check, the client would send token ids of OpenAI's tokenizer instead of texts.
    embeddings = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="none", model="demo", check_embedding_ctx_length=False)
    return embeddings.embed_documents(TEXTS)


def langchain_huggingface(url: str) -> Vectors:
    from huggingface_hub import InferenceClient
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    embeddings = HuggingFaceEndpointEmbeddings()
    embeddings.client = InferenceClient(f"{url}/tei")  # its `model` accepts only names on the Hub
    return embeddings.embed_documents(TEXTS)


def llama_index_tei(url: str) -> Vectors:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    return TextEmbeddingsInference(base_url=f"{url}/tei", model_name="demo").get_text_embedding_batch(TEXTS)


def llama_index_openai_like(url: str) -> Vectors:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    return OpenAILikeEmbedding(api_base=f"{url}/v1", api_key="none", model_name="demo").get_text_embedding_batch(TEXTS)


def haystack_text(url: str) -> Vectors:
    from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPITextEmbedder

    embedder = HuggingFaceAPITextEmbedder(api_type="text_embeddings_inference", api_params={"url": f"{url}/tei"})
    return [embedder.run(text=text)["embedding"] for text in TEXTS]


def haystack_documents(url: str) -> Vectors:
    from haystack import Document
    from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPIDocumentEmbedder

    embedder = HuggingFaceAPIDocumentEmbedder(api_type="text_embeddings_inference", api_params={"url": f"{url}/tei"})
    documents = embedder.run(documents=[Document(content=text) for text in TEXTS])["documents"]
    return [list(document.embedding) for document in documents]


def huggingface_hub(url: str) -> Vectors:
    from huggingface_hub import InferenceClient

    return InferenceClient(f"{url}/tei").feature_extraction(TEXTS).tolist()


def huggingface_hub_similarity(url: str) -> Vectors:
    from huggingface_hub import InferenceClient

    return [InferenceClient(f"{url}/tei").sentence_similarity(TEXTS[0], other_sentences=TEXTS)]


def litellm(url: str) -> Vectors:
    from litellm import embedding

    response = embedding(
        model="openai/demo", input=TEXTS, api_base=f"{url}/v1", api_key="none", encoding_format="float"
    )
    return [item["embedding"] for item in response.data]
