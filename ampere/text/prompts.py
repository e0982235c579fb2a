"""The prompts that turn a raw transcript into a product summary, by name.

A prompt's name is written into every summary made with it, so a changed wording must get a new name: the rows
made with the old one then become due again.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """One way to ask. `messages` gives the chat for one transcript; the model's own chat template renders it."""

    name: str
    system: str
    examples: tuple[tuple[str, str], ...]

    def messages(self, transcript: str) -> list[dict[str, str]]:
        chat = [{"role": "system", "content": self.system}] if self.system else []
        for question, answer in self.examples:
            chat += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*chat, {"role": "user", "content": transcript}]


ZH_EXAMPLE = Prompt(
    name="zh-example-1",
    system=(
        "你是电商内容编辑。用户给出一段带货语音的自动识别文字，里面有同音错字、重复、口头语和促销话术。"
        "请找出主播真正在卖的那一件商品，改正明显的同音错字，用 JSON 回答："
        "product_name 是完整商品名，product_features 是材质、功能、规格等卖点短语的列表。"
        "不要写价格、快递、优惠和寒暄；文字里没有的内容不要编。如果通篇没有商品，两项都留空。"
    ),
    examples=(
        (
            "哈喽宝宝们那个今天这个呃松石牌的竹炭竹炭牙刷啊就是刷毛特别细特别细不伤牙银，一板十只，"
            "三二一上链接松石竹炭牙刷拍到就是赚到",
            '{"product_name":"松石竹炭牙刷","product_features":["刷毛细","不伤牙龈","一板十支"]}',
        ),
        ("欢迎新进来的家人点点关注，福袋先领一下，我们马上开始", '{"product_name":"","product_features":[]}'),
    ),
)

# For models that were trained on exactly this task, such as the shipped one: the transcript is the whole question.
BARE = Prompt(name="bare-1", system="", examples=())

PROMPTS = {prompt.name: prompt for prompt in (ZH_EXAMPLE, BARE)}
