"""Tiny checkpoints of prompt expanders and safety checkers: real classes and layouts, with predictable weights."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

WORDS = ("the", "red", "green", "blue", "circle", "moves", "slowly", "over", "sea", "at", "night", "camera", "pans")
FORBIDDEN = "forbidden"
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
IMAGE = "<image>"
IMAGE_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %} {% endfor %}{% endfor %}"
)
SIZE = 32


def picture_classifier(folder: Path, labels: tuple[str, ...] = ("normal", "nsfw"), safe_below: float = 0.5) -> Path:
    """Writes a classifier that gives a picture the second label if it is brighter than `safe_below` (white is 1).

    The weights are set by hand: the class token carries the mean brightness of the patches and nothing else, and the
    head is linear in it.
    """
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        image_size=SIZE,
        patch_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        vit = model.vit
        # Patches carry (brightness, -brightness), whose sign survives the norms. Uniform attention takes their mean.
        patches = vit.embeddings.patch_embeddings.projection
        patches.weight[0], patches.weight[1] = 1 / 192, -1 / 192
        patches.bias[0], patches.bias[1] = 1 - 2 * safe_below, 2 * safe_below - 1
        for name, parameter in model.named_parameters():
            if "layernorm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
            if name.endswith(("v_proj.weight", "value.weight", "o_proj.weight", "attention.output.dense.weight")):
                parameter.copy_(torch.eye(16))
        model.classifier.weight[1, 0], model.classifier.weight[1, 1] = 2.0, -2.0
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def text_classifier(folder: Path) -> Path:
    """Writes a classifier that calls a text toxic if it contains the word `FORBIDDEN`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, FORBIDDEN]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "fine", 1: "toxic"},
        label2id={"fine": 0, "toxic": 1},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if name.endswith("LayerNorm.weight") else parameter.zero_()
        # The word's embedding reaches the first token through uniform attention, and from there the head.
        bert = model.bert
        bert.embeddings.word_embeddings.weight[words.index(FORBIDDEN), :2] = torch.tensor([1.0, -1.0])
        attention = bert.encoder.layer[0].attention
        attention.self.value.weight.copy_(torch.eye(16))
        attention.output.dense.weight.copy_(torch.eye(16))
        bert.pooler.dense.weight.copy_(torch.eye(16))
        model.classifier.weight[1, 0], model.classifier.bias[1] = 10.0, -1.0
    model.save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def language_model(folder: Path, seed: int = 0, *, template: str | None = TEMPLATE) -> Path:
    """Writes a language model with random weights: its answers depend on the whole prompt and on the seed."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=1.0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def captioner(folder: Path, seed: int = 0) -> Path:
    """Writes a captioning model with random weights, which takes a picture and no prompt."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    text = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "initializer_range": 1.0,
    }
    sight = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 8,
        "initializer_range": 1.0,
    }
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=sight)).save_pretrained(folder)
    processor = BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    BlipProcessor(processor, tokenizer).save_pretrained(folder)
    return folder


def vision_model(folder: Path, seed: int = 0) -> Path:
    """Writes a vision-language model with random weights. A picture becomes 16 patches of one token each."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=1.0,
    )
    sight = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
    )
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    LlavaForConditionalGeneration(
        LlavaConfig(vision_config=sight, text_config=text, image_token_index=image, image_seq_length=16)
    ).save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=square),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=IMAGE_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token per word of `WORDS`."""
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=512,
    )
