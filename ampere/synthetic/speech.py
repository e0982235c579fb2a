"""Generated sales talk about a product, and the transcript that a speech recognizer makes of it.

`say` writes the sales talk: a few facts among noise. `recognize` adds the errors of real ASR text:
homophones, stutters, filler words and missing punctuation. Both draw from one `random.Random`, so a
seed gives the same transcript on every machine.
"""

import random
from collections.abc import Sequence
from functools import cache

from pypinyin import lazy_pinyin

from ampere.synthetic.products import Product
from ampere.text.characters import common_characters

FILLERS = (
    "呃",
    "嗯",
    "那个",
    "就是说",
    "然后",
    "对吧",
    "是不是",
    "啊",
    "哎",
    "这个这个",
    "怎么说呢",
    "你知道吗",
)
OPENERS = (
    "家人们晚上好啊欢迎来到直播间",
    "来来来新进来的宝宝们先点个关注",
    "哈喽大家好又见面了",
    "姐妹们听我说先别划走",
    "刚进来的朋友扣个一让我看到你们",
    "今天这一场真的是给大家谋福利",
    "先跟大家唠两句再上链接",
    "很多老粉一直在后台催我",
    "左上角福袋先点一下不要错过",
    "欢迎新来的朋友喜欢主播的灯牌点一下",
    "不要着急一个一个来都有",
    "屏幕前的你是不是也有这个烦恼",
    "我跟你们讲我做直播三年了",
    "咱们今天废话不多说",
    "朋友们停一下看这里",
    "最近天气变得太快了大家注意身体",
)
CHATTER = (
    "那边的宝宝问发什么快递我们默认发的都是最快的", "主播今天嗓子有点哑大家见谅",
    "助理把后台打开看一下库存", "没有点关注的点个关注不迷路", "公屏上打想要两个字",
    "昨天没抢到的今天补给你们", "运费险都给你们送了不喜欢就退", "你去商场专柜看看是什么价格",
    "三二一上链接手速要快", "倒计时五个数抢到就是赚到", "库存只剩最后五十单了",
    "拍两件更划算拍下的报名字", "我自己家里人都在用的", "不要九十九不要五十九今天只要二十九块九",
    "信我一次你就知道了", "下播之后马上恢复原价", "老板今天不在我偷偷给你们改价",
    "评价区大家自己去看都是真实反馈", "客服在线有问题直接打字问", "还有没有没抢到的宝宝",
    "一号链接二号链接别拍错了", "今天是工厂直接发货没有中间商", "好多人在刷屏我都看不过来了",
)  # fmt: skip
NAME_LINES = (
    "今天给大家带来的是{name}", "这款{name}真的绝了", "就是我手上这个{name}",
    "我们家的{name}终于补货了", "一号链接{name}", "很多人问的{name}来了", "认准{name}",
    "{name}大家看一下", "说的就是{name}", "{name}现在有活动", "我手里拿的是{name}",
    "拍的时候看清楚是{name}", "接下来讲一讲{name}", "这个{name}我用了快一年",
)  # fmt: skip
PART_LINES = (
    "{brand}这个牌子做得很用心", "这个{noun}跟别家的不一样", "{kind}的味道和质感一眼就能看出来",
    "要说{function}还得是它", "{brand}的{noun}回购率特别高", "喜欢{kind}的姐妹闭眼入",
    "{function}的效果我是亲测的", "买{noun}就看{kind}",
)  # fmt: skip
FEATURE_LINES = (
    "它{f}", "关键是{f}", "最大的优点就是{f}", "而且{f}", "我最喜欢的一点是{f}", "重点来了{f}",
    "你看{f}", "用过的都说{f}", "还有一个{f}", "这一点必须夸{f}",
)  # fmt: skip
SIZE_LINES = ("规格是{f}的", "这一个是{f}", "拍一份发{f}", "今天给的是{f}", "我们做的是{f}")
OTHER_LINES = (
    "上次那个{name}已经卖完了",
    "等一下还有{name}",
    "不是{name}啊别搞混了",
    "{name}在三号链接",
)


def say(
    product: Product, rng: random.Random, *, lines: int, other: Product | None = None
) -> list[str]:
    """Draw sales talk: two or three mentions of the full name, every feature once, and noise.

    Args:
        product: the product on sale.
        rng: source of all choices.
        lines: approximate number of lines; about 8 for a short clip, about 16 for a live clip.
        other: a second product that the seller mentions in passing, or None.
    """
    size, *features = product.features
    facts = [line.format(name=product.name) for line in rng.sample(NAME_LINES, k=2 + (lines > 10))]
    facts += [
        line.format(f=f)
        for line, f in zip(rng.sample(FEATURE_LINES, k=len(features)), features, strict=True)
    ]
    facts.append(rng.choice(SIZE_LINES).format(f=size))
    if rng.random() < 0.5:
        words = {
            "brand": product.brand,
            "kind": product.kind,
            "function": product.function,
            "noun": product.noun,
        }
        facts.append(rng.choice(PART_LINES).format(**words))
    noise = [rng.choice(CHATTER) for _ in range(max(1, lines - len(facts)))]
    if other is not None:
        noise.append(rng.choice(OTHER_LINES).format(name=other.name))
    body = facts + noise
    rng.shuffle(body)
    return [*rng.sample(OPENERS, k=1 + (lines > 10)), *body]


def chat(rng: random.Random, *, lines: int) -> list[str]:
    """Draw sales talk that names no product: an opener and `lines` lines of chatter."""
    return [rng.choice(OPENERS), *(rng.choice(CHATTER) for _ in range(lines))]


@cache
def homophones() -> dict[str, str]:
    """Common character -> the other common characters of the same sound, ignoring tone."""
    by_sound: dict[str, list[str]] = {}
    characters = common_characters()
    for character, sound in zip(characters, lazy_pinyin(list(characters)), strict=True):
        by_sound.setdefault(sound, []).append(character)
    return {c: "".join(x for x in group if x != c) for group in by_sound.values() for c in group}


def recognize(
    lines: Sequence[str],
    rng: random.Random,
    *,
    homophone: float = 0.03,
    stutter: float = 0.12,
    filler: float = 0.25,
    comma: float = 0.4,
    fillers: Sequence[str] = FILLERS,
    marks: Sequence[str] = "，",
) -> str:
    """Draw the transcript that a speech recognizer makes of spoken lines.

    Args:
        lines: the spoken lines.
        rng: source of all choices.
        homophone: probability per character of another character of the same sound.
        stutter: probability per line that a piece of one to four characters is repeated.
        filler: probability per line of a filler word at its start.
        comma: probability per line of a punctuation mark at its end; else lines run together.
        fillers: filler words to draw from.
        marks: punctuation marks to draw from.
    """
    written = []
    for line in lines:
        if rng.random() < stutter:
            start = rng.randrange(len(line))
            piece = line[start : start + rng.randint(1, 4)]
            line = line[:start] + piece + line[start:]
        line = "".join(
            rng.choice(homophones()[c]) if rng.random() < homophone and homophones().get(c) else c
            for c in line
        )
        if rng.random() < filler:
            line = rng.choice(fillers) + line
        written.append(line + (rng.choice(marks) if rng.random() < comma else ""))
    return "".join(written).rstrip("".join(marks))
