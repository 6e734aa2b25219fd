"""What answers are read as, and what is never guessed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.annotation.answers import Reader, Reading
from undertone.codebook import Codebook

SEVEN = ("obscene", "discriminatory", "violent", "illegal", "personal", "corporate", "others")
JAPANESE = ("猥褻", "差別", "暴力", "違法", "個人情報", "企業情報", "その他")


def book(name: str, labels: list[tuple[object, ...]], *, many: bool = False) -> Codebook:
    """A codebook of labels written as id, name, code and aliases."""
    return Codebook.model_validate(
        {
            "name": name,
            "title": name,
            "language": "en",
            "many": many,
            "labels": [
                {"id": label, "name": written, "code": code, "aliases": aliases}
                for label, written, code, *aliases in labels
            ],
        }
    )


BOOKS = {
    "gender": book("gender", [
        ("positive", "Positive", 0, "积极", "支持"), ("mild", "Mild", 1, "neutral", "温和"),
        ("negative", "Negative", 2, "消极", "反对"),
        ("irrelevant", "Irrelevant", 3, "无关", "off-topic"),
    ]),
    "guns": book("guns", [
        ("support_polarized", "Support Gun Polarized", None),
        ("support_non_polarized", "Support Gun non-Polarized", None),
        ("neutral", "Neutral", None),
        ("anti_polarized", "Anti Gun Polarized", None),
        ("anti_non_polarized", "Anti Gun non-Polarized", None),
        ("not_relevant", "Not relevant", None),
        ("not_sure", "Not Sure", None),
    ]),
    "poles": book("poles", [
        ("polarized", "polarized", None), ("unpolarized", "unpolarized", None, "non-polarized"),
    ]),
    "toxicity": book("toxicity", [
        (label, label, code, alias)
        for code, label, alias in zip(range(1, 8), SEVEN, JAPANESE, strict=True)
    ], many=True),
    "harm": book("harm", [
        ("nontoxic", "nontoxic", None, "無害", "无害"), ("toxic", "toxic", None, "有害"),
        ("has_toxic_expression", "has_toxic_expression", None, "有害表現あり"),
    ]),
    "news": book("news", [
        ("positive", "positive", None, "积极", "正面"), ("neutral", "neutral", None, "中性"),
        ("negative", "negative", None, "消极", "负面"),
    ]),
    "war": book("war", [
        ("ukraine", "soutien à l'Ukraine", 0, "pro-Ukraine"),
        ("russia", "soutien à la Russie", 1, "pro-Russie"),
        ("off_topic", "hors sujet", 2, "sans opinion"),
    ]),
}  # fmt: skip

# Expected: a label, several with + between them, `none` of them; `?` unparsable, `!` refused,
# `#` out of schema. What follows a `?` is what a person would read there nevertheless.
GOLDEN: dict[str, list[tuple[str, str]]] = {
    "gender": [
        ("[0]", "positive"), ("[1]", "mild"), ("[2]", "negative"), ("[3]", "irrelevant"),
        ("(1)", "mild"), ("1", "mild"), (" 1\n", "mild"), ("１", "mild"), ("［１］", "mild"),
        ("1.", "mild"),
        ("1。", "mild"), ("**1**", "mild"), ("**[1]**", "mild"), ("`1`", "mild"), ("*1*", "mild"),
        ("__1__", "mild"), ("\"1\"", "mild"), ("“1”", "mild"), ("'[1]'", "mild"), ("[[1]]", "mild"),
        ("[ 1 ]", "mild"), ("【1】", "mild"), ("「1」", "mild"), ("#1", "mild"), ("<1>", "mild"),
        ("{1}", "mild"),
        ("Label: 1", "mild"), ("label:1", "mild"), ("LABEL = 1", "mild"), ("Label - 1", "mild"),
        ("**Label:** 1", "mild"), ("**Label: [1]**", "mild"), ("### Label\n[1]", "mild"),
        ("Label: [1].", "mild"), ("Answer: 2", "negative"), ("Final answer: [2]", "negative"),
        ("The final answer is: [2]", "negative"), ("The answer is 2.", "negative"),
        ("The label is [3].", "irrelevant"), ("So the answer is 2.", "negative"),
        ("Therefore, the label of the comment is 2.", "negative"), ("Class 2", "negative"),
        ("Category: 3", "irrelevant"), ("Output: [0]", "positive"), ("Assistant: [0]", "positive"),
        ("Sure! Here is the label: [1]", "mild"), ("Sure, here's the answer:\n\n[1]", "mild"),
        ("Based on the definitions provided, the label is: 1", "mild"), ("答案：1", "mild"),
        ("标签：[1]", "mild"), ("标签是1。", "mild"), ("这条评论的标签是：[2]", "negative"),
        ("该评论的分类结果为：2", "negative"), ("类别：3", "irrelevant"), ("类别3", "irrelevant"),
        ("最终答案：【2】", "negative"), ("好的，答案是：[0]", "positive"),
        ("因此，答案是2。", "negative"),
        ("根据以上定义，这条评论的类别是：1", "mild"), ("这条评论被归类为[2]。", "negative"),
        ("答案：积极", "positive"), ("积极", "positive"), ("“消极”", "negative"), ("积极的", "positive"),
        ("这条评论是消极的。", "negative"), ("该评论属于无关类。", "irrelevant"),
        ("情感倾向：温和", "mild"),
        ("消极 (negative)", "negative"), ("Negative（消极）", "negative"), ("negative/消极", "negative"),
        ("{label:1}", "mild"), ("{label: 1}", "mild"), ('{"label": 1}', "mild"),
        ('{"label": "1"}', "mild"),
        ("{'label': '1'}", "mild"), ('{"label": [1]}', "mild"), ('[{"label": 1}]', "mild"),
        ('{"label": "Mild"}', "mild"), ('{"标签": "温和"}', "mild"), ('{"class_id": 1}', "mild"),
        ('{"label": 1, "confidence": 0.9}', "mild"), ('{"label": 1,}', "mild"),
        ('{"reason": "It asks: [2] or [3]?", "label": 1}', "mild"), ("｛label：1｝", "mild"),
        ('{\n  "label": 1\n}', "mild"), ('```json\n{"label": 1}\n```', "mild"), ("```\n1\n```", "mild"),
        ('Here is the answer:\n```json\n{"label": "1"}\n```', "mild"), ('"label": 1', "mild"),
        ('{"label": "\\u6e29\\u548c"}', "mild"), ('{"label": 1, "name": "mild"}', "?mild"),
        ("<label>1</label>", "mild"), ("<answer>[1]</answer>", "mild"), ("\\boxed{1}", "mild"),
        ("$\\boxed{\\text{mild}}$", "mild"), ("1</s>", "mild"), ("[1]<|im_end|>", "mild"),
        ("[1]<|im_end|>\n<|endoftext|>", "mild"), ("[/INST] [1] </s>", "mild"), ("1<|eot_id|>", "mild"),
        ("Mild", "mild"), ("mild", "mild"), ("MILD", "mild"), ("Mild.", "mild"), ("*Mild*", "mild"),
        ("'Mild'", "mild"), ("- Mild", "mild"), ("neutral", "mild"), ("Off-Topic", "irrelevant"),
        ("off topic", "irrelevant"), ("off\u2011topic", "irrelevant"), ("Mild comment", "mild"),
        ("1 - Mild", "mild"), ("1 – Mild", "mild"), ("1: mild", "mild"), ("1 mild", "mild"),
        ("1) mild", "mild"), ("[1] mild", "mild"), ("[1]: Mild", "mild"), ("[1] - Mild.", "mild"),
        ("mild (1)", "mild"), ("Mild [1]", "mild"), ("Label: 1 (mild)", "mild"),
        ("This comment is negative.", "negative"), ("The comment is irrelevant.", "irrelevant"),
        ("This comment expresses a positive attitude.", "positive"), ("It is mild.", "mild"),
        ("I would classify this comment as [2].", "negative"),
        ("The comment should be classified as negative.", "negative"),
        ("[2]\nReason: The writer mocks women.", "negative"),
        ("Label: 2\n\nExplanation: The writer calls the quota a gift.", "negative"),
        ("[2]\n理由：作者嘲笑女性。", "negative"), ("Label: 2\nConfidence: 0.9", "negative"),
        ("<think>Is it 2 or 3? Label: 2.</think>\n[1]", "mild"), ("<think>\n\n</think>\n\n1", "mild"),
        ("It may be [2].</think>[1]", "mild"),
        ("[2]\n\nThe writer mocks women.", "?negative"), ("1️⃣", "?mild"), ("positive!!", "?positive"),
        ("[1] mild", "mild"), ("After reading the comment, I choose [1].", "?mild"),
        ("The comment mocks women. Label: 2", "?negative"),
        # Nothing a person would be sure of.
        ("", "?"), (" \n ", "?"), (".", "?"), ("[]", "?"), ("[ ]", "?"), ("Label:", "?"), ("{}", "?"),
        ("[1, 2]", "?"), ("[1][2]", "?"), ("[1] [1]", "?"), ("1 or 2", "?"), ("1/2", "?"), ("1-2", "?"),
        ("1, 2", "?"), ("0-3", "?"), ("1 2", "?"), ("[1] or [2]", "?"), ("1～2", "?"), ("- 1", "?"),
        ("~1", "?"), ("1?", "?"), ("1%", "?"), ("²", "?"), ("①", "?"), ("Ⅱ", "?"), ("II", "?"),
        ("one", "?"),
        ("two", "?"), ("一", "?"), ("二", "?"), ("½", "?"), ("1st", "?"), ("2**3", "?"), ("1̶", "?"),
        ("[1", "?"),
        ('{"label": 1', "?"), ('{"label": }', "?"), ('{"label": 1, "label": 2}', "?"),
        ('{"label": [1, 2]}', "?"), ('{"label": 1, "class": 2}', "?"), ('{"score": 1}', "?"),
        ('{"positive": 1, "negative": 0}', "?"), ('[{"label": 1}, {"label": 2}]', "?"),
        ('{"label": "1 or 2"}', "?"), ('{"label": "not positive"}', "?"), ("mild: 1", "?"),
        ("[1] negative", "?"), ("1 - negative", "?"), ("Label: 1 (negative)", "?"), ("mild (2)", "?"),
        ("There are 2 reasons.", "?"), ("The number of comments is 2.", "?"), ("2 comments", "?"),
        ("I see 2 reasons to call it mild.", "?"), ("It seems this comment has no gender bias.", "?"),
        ("not positive", "?"), ("isn't mild", "?"), ("The comment is not negative.", "?"),
        ("This comment isn't mild.", "?"), ("不是积极", "?"), ("不积极", "?"), ("非消极", "?"),
        ("这条评论不是积极的。", "?"), ("这条评论并不消极", "?"), ("ではない", "?"),
        ("Label: not mild", "?"),
        ("标签：不积极", "?"), ("The label is not 2.", "?"),
        ("It is neither positive nor negative.", "?"),
        ("very negative", "?"), ("mildly negative", "?"), ("Label: positive or mild", "?"),
        ("The comment could be negative.", "?"), ("This comment may be mild.", "?"), ("Negative?", "?"),
        ("positive, negative", "?"), ("positive\nnegative", "?"), ("Positive and mild.", "?"),
        ("Is the comment positive? It is negative.", "?"), ("supportive", "?"), ("nonnegative", "?"),
        ("The result is positive.", "?"), ("这篇新闻的结果是积极的", "?"), ("Label: 1\nLabel: 2", "?"),
        ("[2]\nReason: I am unsure.", "?"), ("Label: not hostile", "?"),
        ("[2]\nReason: On second thought it is mild.", "?"), ("[2]\nReason: Not 2 but 1.", "?"),
        ("0 = positive, 1 = mild, 2 = negative, 3 = irrelevant", "?"), ("[0] [1] [2] [3]", "?"),
        ("<think>It is [1]", "?"), ("<think>Label: 1</think>", "?"), ("[1]<think>or 2</think>", "?"),
        ("<think>a<think>b</think>[1]", "?"), ("Hello! How can I help you today?", "?"), ("yes", "?"),
        ("Label 1 is for mild comments, label 2 for negative ones.", "?"), ("positive...", "?"),
        ("Comment: The quota is 2.", "?"), ("{label}", "#"), ("[code]", "#"),
        ("[7]", "#"), ("7", "#"), ("-1", "#"), ("−1", "#"), ("1.5", "#"), ("99", "#"),
        ('{"label": 9}', "#"),
        ('{"label": NaN}', "#"), ('{"label": null}', "#"), ('{"label": -Infinity}', "?"), ("[12]", "#"),
        ("Label: sarcastic", "#"), ("标签：讽刺", "#"), ("Label: 5", "#"), ("The answer is 4.", "#"),
        ('{"label": "sarcastic"}', "#"), ("[sarcastic]", "#"), ("Label: N/A", "?"), ("1e999", "#"),
        ("Label: unknown", "#"), ("5" * 500, "#"), ("5" * 5000, "?"),
        ("I'm sorry, but I can't assist with that.", "!"), ("I cannot help with this request.", "!"),
        ("I’m sorry, I can’t help with that request.", "!"),
        ("Sorry, I am unable to classify this.", "!"),
        ("As an AI language model, I don't have personal opinions.", "!"),
        ("I must decline to label this comment.", "!"), ("I cannot determine the label.", "!"),
        ("I'm just an AI, it's not within my programming to judge.", "!"), ("I won't answer that.", "!"),
        ("Label: I cannot classify this comment.", "!"),
        ('{"error": "I can\'t assist with that."}', "!"),
        ("抱歉，我无法回答这个问题。", "!"), ("很抱歉，我不能对此进行评价。", "!"),
        ("标签：无法判断", "!"),
        ("作为一个人工智能语言模型，我还没学习如何回答这个问题。", "!"), ("我无法提供帮助。", "!"),
        ("你好，这个问题我暂时无法回答，让我们换个话题再聊聊吧。", "!"), ("对不起，我不能协助。", "!"),
        ("I'm sorry, but I can't assist with that. Label: 1", "?"), ("[1]\nSorry, I cannot help.", "?"),
        ("I cannot say whether it is [1] or [2].", "?"), ("As an AI, I would say [2].", "?"),
    ],
    "gender, after a thought": [
        ("[1]", "mild"), ("Label: [1]", "mild"), ('{"label": 1}', "mild"),
        ("The writer weighs 2 views.\nLabel: [1]", "mild"),
        ("It is not positive [0].\nLabel: 2", "negative"),
        ("Positive? Negative?\n\n**Label:** [2]", "negative"), ("作者反对配额。\n标签：[2]", "negative"),
        ("First I thought Label: 1.\nLabel: 1\nBut no.\nLabel: 2", "negative"),
        ("The writer mocks women. Label: [2]", "negative"),
        ("作者嘲笑女性。因此，标签：[2]", "negative"),
        ("There are 3 hints.\nTherefore, the answer is 2.", "negative"),
        ("Step 1: read.\nStep 2: judge.\nFinal answer: 3", "irrelevant"),
        ('It has 2 parts.\n```json\n{"label": 1}\n```', "mild"), ('Mild.\n{\n  "label": 1\n}', "mild"),
        ("Some 2.\n<answer>1</answer>", "mild"), ("So 2 views.\n\\boxed{1}", "mild"),
        ("The answer is \\boxed{2}.", "negative"), ("Two views.\nLabel:\n[1]", "mild"),
        ("A quota.\nLabel: 1 - Mild</s>", "mild"), ("<think>0? 1? 2?</think>[1]", "mild"),
        ("<think>0? 1?</think>The writer asks 2 things.\nLabel: 1", "mild"),
        ("I cannot tell at first whether it is mild.\nLabel: [1]", "mild"),
        ("The writer mocks women.\n[2]", "?negative"),
        ("The writer mocks women.", "?"), ("This comment is negative.", "?"), ("It is 2.", "?"),
        ("Label: 1\nBut it may as well be 2.", "?"), ("Label: 1. Label: 2.", "?"),
        ("Label: 1 or 2", "?"), ("It is mild.\nLabel: 1 (negative)", "?"), ("<think>Label: 1", "?"),
        ("I choose between\nLabel: 0\nLabel: 1", "?"),
        ("The options are:\n[0]\n[1]", "?"), ("I don't think the label is 1.", "?"), ("积极的", "?"),
        ("The sentiment is negative.\nLabel:", "?"), ("The writer mocks.\nLabel: sarcastic", "#"),
        ("Some thought.\nLabel: [7]", "#"), ("I'm sorry, I can't assist.\nLabel: 1", "?"),
        ("As an AI, I can't judge people.", "!"), ("I cannot determine a label here.", "!"),
    ],
    "guns": [
        ("Support Gun Polarized", "support_polarized"), ("support gun polarized", "support_polarized"),
        ("Support Gun non-Polarized", "support_non_polarized"),
        ("'Anti Gun Polarized'", "anti_polarized"),
        ("Support Gun Non Polarized", "support_non_polarized"),
        ("anti_non_polarized", "anti_non_polarized"),
        ("User label: Support Gun Polarized </s>", "support_polarized"),
        ("User label: [/INST] Support Gun non-Polarized </s>", "support_non_polarized"),
        ("[/INST] Anti Gun non-Polarized </s>", "anti_non_polarized"), ("Label: Neutral", "neutral"),
        ("Support Gun non\u2011Polarized", "support_non_polarized"), ("Not Sure", "not_sure"),
        ("Not Sure.", "not_sure"), ("**Not relevant**", "not_relevant"),
        ("NOT RELEVANT", "not_relevant"),
        ("The sentence is classified as 'Anti Gun Polarized'.", "anti_polarized"),
        ("The correct label is Support Gun non-Polarized.", "support_non_polarized"),
        ("Category: 'Not Sure'", "not_sure"),
        ('{"label": "Anti Gun non-Polarized"}', "anti_non_polarized"),
        ("The sentiment polarity of the sentence is: Neutral", "neutral"),
        ("This sentence falls under 'Neutral'.", "neutral"),
        ("This comment is not relevant.", "not_relevant"),
        ("Support Gun", "?"), ("Polarized", "?"), ("Anti Gun", "?"), ("Label: Support Gun", "#"),
        ("Support Gun Polarized or Support Gun non-Polarized", "?"), ("I'm not sure.", "?"),
        ("Support Gun Polarized, Neutral", "?"), ("not Neutral", "?"), ("Not Neutral.", "?"), ("1", "#"),
        ("Label: not Anti Gun Polarized", "?"), ("Support Gun semi-Polarized", "?"), ("Sure", "?"),
        ("The sentence is not sure to be relevant.", "?"), ("Support Gun Polarized sentence?", "?"),
        ("User label:", "?"), ("I cannot assist with content on weapons.", "!"),
    ],
    "poles": [
        ("polarized", "polarized"), ("unpolarized", "unpolarized"), ("Non-polarized", "unpolarized"),
        ("Label: unpolarized", "unpolarized"), ("not polarized", "?"), ("depolarized", "?"),
        ("The comment is unpolarized.", "unpolarized"), ("The comment is not polarized.", "?"),
        ("Label: depolarized", "#"),
    ],
    "toxicity": [
        ("{" + ", ".join(f'"{label}": "no"' for label in SEVEN) + "}", "none"),
        ("{" + ", ".join(f'"{label}": "yes"' for label in SEVEN) + "}", "+".join(SEVEN)),
        ("{" + ", ".join(f'"{label}": false' for label in SEVEN[1:]) + ', "Obscene": true}', "obscene"),
        ("{" + ", ".join(f'"{label}": {int(label == "violent")}' for label in SEVEN) + "}", "violent"),
        ('{"猥褻": "はい", "差別": "いいえ", "暴力": "はい", "違法": "いいえ", "個人情報": "いいえ", '
         '"企業情報": "いいえ", "その他": "いいえ"}', "obscene+violent"),
        ('{"猥褻": "是", "差別": "否", "暴力": "否", "違法": "否", "個人情報": "否", "企業情報": "否", '
         '"その他": "否"}', "obscene"),
        ("{" + ", ".join(f"{label}: {'oui' if label == 'illegal' else 'non'}" for label in SEVEN) + "}",
         "illegal"),
        ("```json\n{\n" + ",\n".join(f'  "{label}": "no"' for label in SEVEN) + "\n}\n```", "none"),
        ('{"labels": {' + ", ".join(f'"{label}": "no"' for label in SEVEN) + "}}", "none"),
        ("\n".join(f"{label}: {'yes' if label == 'others' else 'no'}" for label in SEVEN), "others"),
        ("\n".join(f"- **{label}**: no" for label in SEVEN), "none"),
        ("\n".join(f"{number}: {'yes' if number == 2 else 'no'}" for number in range(1, 8)),
         "discriminatory"),
        (", ".join(f"{label}=0" for label in SEVEN), "none"),
        ("猥褻：はい、差別：いいえ、暴力：いいえ、違法：いいえ、個人情報：いいえ、企業情報：いいえ、"
         "その他：いいえ", "obscene"),
        ('["obscene", "violent"]', "obscene+violent"), ('["violent", "obscene"]', "obscene+violent"),
        ("['obscene']", "obscene"), ("[obscene, violent]", "obscene+violent"),
        ("[1, 3]", "obscene+violent"),
        ("[3,1]", "obscene+violent"), ("1, 3", "obscene+violent"), ("1,3", "obscene+violent"),
        ("1/3", "obscene+violent"), ("1；3", "obscene+violent"), ("[2]", "discriminatory"),
        ("2", "discriminatory"),
        ("obscene", "obscene"), ("Obscene.", "obscene"), ("obscene, violent", "obscene+violent"),
        ("obscene; violent", "obscene+violent"), ("obscene / violent", "obscene+violent"),
        ("obscene and violent", "obscene+violent"),
        ("obscene, violent, and personal", "obscene+violent+personal"),
        ("猥褻、暴力", "obscene+violent"), ("「猥褻」、「暴力」", "obscene+violent"),
        ("obscene\nviolent", "obscene+violent"),
        ("- obscene\n- violent", "obscene+violent"), ("Labels: obscene, violent", "obscene+violent"),
        ("ラベル：猥褻、暴力", "obscene+violent"), ("ラベルは猥褻、暴力です。", "obscene+violent"),
        ('{"labels": ["obscene", "violent"]}', "obscene+violent"),
        ('{"categories": "1, 3"}', "obscene+violent"),
        ("1. obscene\n3. violent", "obscene+violent"), ("[1] obscene, [3] violent", "obscene+violent"),
        ('{"labels": []}', "none"), ("[]", "none"), ("none", "none"), ("None.", "none"),
        ("なし", "none"),
        ("該当なし。", "none"), ("无", "none"), ("无。", "none"), ("aucun", "none"), ("Aucune.", "none"),
        ("Labels: none", "none"), ("ラベル：なし", "none"), ("none of the above", "none"),
        ('{"labels": "none"}', "none"), ("[none]", "none"), ("答案：无", "none"),
        ("<think>obscene?</think>[]", "none"),
        ("obscene (uses slurs)", "?obscene"), ("1. obscene\n2. violent", "?"),
        ("\n".join(f"{label}: no" for label in SEVEN[:6]), "?"), ('{"obscene": "yes"}', "?"),
        ("{}", "?"),
        ("obscene: yes", "?"), ('{"obscene": "yes", "obscene": "no"}', "?"), ("", "?"), ("no", "?"),
        ("{" + ", ".join(f'"{label}": "no"' for label in SEVEN) + ', "obscene": "yes"}', "?"),
        ("{" + ", ".join(f'"{label}": "no"' for label in SEVEN) + ', "sarcastic": "no"}', "#"),
        ("{" + ", ".join(f'"{label}": NaN' for label in SEVEN) + "}", "#"),
        ("{" + ", ".join(f'"{label}": 2' for label in SEVEN) + "}", "#"),
        ("{" + ", ".join(f'"{label}": "maybe yes"' for label in SEVEN) + "}", "?"),
        ("[0, 1, 0, 0, 0, 0, 1]", "?"), ("[1, 1]", "?"), ("obscene, obscene", "?"), ("[1, 9]", "#"),
        ('["obscene", "sarcastic"]', "#"), ("9", "#"), ("Labels: sarcastic", "#"),
        ("obscene or violent", "?"),
        ("not obscene", "?"), ("obscene, but not violent", "?"), ("obscene, mostly", "?"), ("1.3", "#"),
        ("This comment is obscene.", "?"), ('["obscene", "none"]', "?"), ("猥褻ではない", "?"),
        ("非暴力", "?"),
        ("The comment is violent and personal.", "?"), ("obscene: maybe", "?"), ('["obscene', "?"),
        ("申し訳ありませんが、このコメントを分類することはできません。", "!"),
        ("AIとして、お答えできません。", "!"),
    ],
    "toxicity, after a thought": [
        ("It is violent, not obscene.\nLabels: violent, personal", "violent+personal"),
        ("暴力的です。\nラベル：[3]", "violent"), ("Nothing obscene.\nLabels: none", "none"),
        ("A threat.\n" + "\n".join(f"{one}: {'yes' if one == 'violent' else 'no'}" for one in SEVEN),
         "violent"),
        ("A threat.\n{" + ", ".join(f'"{label}": {int(label == "violent")}' for label in SEVEN) + "}",
        "violent"),
        ("A threat.\nviolent: yes", "?"), ("It is violent and obscene.", "?"),
    ],
    "harm": [
        ("toxic", "toxic"), ("nontoxic", "nontoxic"), ("has_toxic_expression", "has_toxic_expression"),
        ("has toxic expression", "has_toxic_expression"), ("Non-toxic", "?nontoxic"), ("有害", "toxic"),
        ("無害", "nontoxic"), ("有害表現あり", "has_toxic_expression"), ("ラベル：toxic", "toxic"),
        ("ラベル: 「無害」", "nontoxic"), ("回答：有害", "toxic"), ("回答は有害です。", "toxic"),
        ("有害です。", "toxic"),
        ("ラベルはtoxicです。", "toxic"), ("分類結果：nontoxic", "nontoxic"),
        ("最終回答：無害", "nontoxic"),
        ("このコメントは無害です。", "nontoxic"), ("このテキストは「toxic」に分類されます。", "toxic"),
        ("はい、有害です。", "toxic"), ("判定：有害表現あり", "has_toxic_expression"),
        ("したがって、回答は「toxic」です。", "toxic"), ("ﾗﾍﾞﾙ：有害", "toxic"),
        ("有害なコメントです。", "toxic"),
        ('{"label": "toxic"}', "toxic"), ('{"ラベル": "有害"}', "toxic"),
        ("<label>nontoxic</label>", "nontoxic"),
        ("有害ではない", "?"), ("有害ではありません。", "?"), ("このコメントは有害ではない。", "?"),
        ("不有害", "?"),
        ("有害かもしれません。", "?"), ("有害と思われます。", "?"), ("有害または無害", "?"),
        ("有害、無害", "?"),
        ("有害性", "?"), ("無害ではない", "?"), ("toxicity", "?"), ("not toxic", "?"),
        ("intoxicated", "?"),
        ("toxic: 0", "?"), ("ラベル：有害ではない", "?"), ("有害表現", "?"), ("ラベル：中立", "#"),
        ("1", "#"),
        ("申し訳ございませんが、その内容にはお答えできません。", "!"), ("回答を差し控えます。", "!"),
        ("申し訳ありませんが、お手伝いできません。", "!"),
        ("言語モデルとして、判断することはできません。", "!"),
        ("すみませんが、対応できません。", "!"), ("判断できません。", "!"),
        ("申し訳ありませんが、お答えできません。\nラベル：有害", "?"),
    ],
    "news": [
        ("positive", "positive"), ("这篇新闻的情绪是：positive", "positive"), ("Positive.", "positive"),
        ("这篇新闻的情绪是：积极", "positive"), ("这篇新闻的情绪是积极的。", "positive"),
        ("情绪：负面", "negative"),
        ("情感：中性", "neutral"), ("该新闻的情感为：消极。", "negative"), ("正面", "positive"),
        ("Sentiment: negative", "negative"), ("The sentiment of this news is neutral.", "neutral"),
        ("The news is positive.", "positive"), ("negative sentiment", "negative"),
        ("这篇新闻属于中性", "neutral"),
        ("这篇新闻的情绪是：negative<|endoftext|>", "negative"), ("<|assistant|>\nnegative", "negative"),
        ("中性情绪", "neutral"), ('{"sentiment": "positive"}', "positive"),
        ('{"情绪": "积极"}', "positive"),
        ("positive（积极）", "positive"), ("情绪 - 中性", "neutral"), ("答案是：中性。", "neutral"),
        ("这篇新闻的情绪是：", "?"), ("这篇新闻的情绪不是积极的", "?"), ("并非负面", "?"),
        ("偏积极", "?"), ("不积极", "?"),
        ("较为消极", "?"), ("积极或中性", "?"), ("积极、消极", "?"), ("neutral to positive", "?"),
        ("neutral-positive", "?"),
        ("The news could be positive for some.", "?"), ("positive positive", "?"), ("中", "?"),
        ("非中性", "?"),
        ("A positive result was reported.", "?"), ("The company's result is positive.", "?"),
        ("情绪：复杂", "#"), ("Sentiment: mixed", "#"), ("我无法判断这篇新闻的情绪。", "!"), ("2", "#"),
        ("抱歉，根据相关规定，我不能提供投资建议。", "!"),
    ],
    "war": [
        ("{label:0}", "ukraine"), ("{label:1}", "russia"), ("{label:2}", "off_topic"),
        ("{label: 2} </s>", "off_topic"),
        ("{Label:0}", "ukraine"), ("{label : 0}", "ukraine"), ("{'label':0}", "ukraine"),
        ("label:0", "ukraine"),
        ("{{label:0}}", "ukraine"), ("{label:0}.", "ukraine"), ("### Response:\n{label:0}", "ukraine"),
        ("Réponse : 1", "russia"), ("Réponse: {label:1}", "russia"), ("La réponse est 2.", "off_topic"),
        ("Étiquette : 2", "off_topic"), ("Etiquette : 2", "off_topic"),
        ("La catégorie est : 1", "russia"),
        ("soutien à l'Ukraine", "ukraine"), ("Soutien à l’Ukraine", "ukraine"),
        ("Hors sujet", "off_topic"),
        ("« hors sujet »", "off_topic"), ("Ce commentaire est hors sujet.", "off_topic"),
        ("Ce commentaire exprime un soutien à la Russie.", "russia"),
        ("0 : soutien à l'Ukraine", "ukraine"),
        ("soutien a\u0300 la Russie", "russia"), ("pro-Russie", "russia"),
        ("Sans opinion.", "off_topic"),
        ("Voici la réponse : {label:2}", "off_topic"), ("Donc, la réponse est 0.", "ukraine"),
        ("La réponse est {label:1}.\nExplication : le commentaire salue Moscou.", "russia"),
        ("Antwort: 1", "russia"), ("Respuesta: 2", "off_topic"), ("La respuesta es 2.", "off_topic"),
        ("{label:0}\n{label:1}", "?"), ("{label:0} ou {label:1}", "?"), ("{label:}", "?"),
        ("{label:0", "?"),
        ("pas hors sujet", "?"), ("Ce commentaire n'est pas hors sujet.", "?"),
        ("Il y a 2 raisons.", "?"),
        ("Ce commentaire est plutôt hors sujet.", "?"), ("soutien à l'Ukraine ou hors sujet", "?"),
        ("1,5", "?"),
        ("0 : soutien à la Russie", "?"), ("un ou deux", "?"), ("soutien", "?"), ("{label:3}", "#"),
        ("Étiquette : ironique", "#"), ("{label:-1}", "#"), ("Réponse : 12", "#"),
        ("Je suis désolé, mais je ne peux pas répondre à cette demande.", "!"),
        ("Désolé, je ne peux pas vous aider.", "!"), ("En tant qu’IA, je n’ai pas d’opinion.", "!"),
        ("En tant que modèle de langage, je ne prends pas parti.", "!"),
        ("Je ne peux pas classer ce commentaire.", "!"), ("Impossible de déterminer la catégorie.", "!"),
        ("Es tut mir leid, aber ich kann dabei nicht helfen.", "!"),
        ("Lo siento, no puedo ayudar con eso.", "!"),
        ("Als KI kann ich dazu keine Meinung haben.", "!"),
        ("Como modelo de lenguaje, no tengo opiniones.", "!"),
        ("Je suis désolé, je ne peux pas répondre. {label:1}", "?"),
    ],
}  # fmt: skip
ROWS = [(name, answer, expected) for name, rows in GOLDEN.items() for answer, expected in rows]
READERS = {
    name: Reader(BOOKS[name.partition(",")[0]], reasoning=name.endswith("thought")) for name in GOLDEN
}


def told(reading: Reading) -> str:
    if reading.outcome == "ok":
        return "+".join(reading.labels) or "none"
    return {"unparsable": "?", "refused": "!", "out_of_schema": "#"}[reading.outcome]


@pytest.mark.parametrize(("name", "answer", "expected"), ROWS)
def test_an_answer_is_read_as_a_person_would_or_not_at_all(
    name: str, answer: str, expected: str
) -> None:
    assert told(READERS[name].read(answer)) == (expected if expected[0] != "?" else "?")


def test_at_most_one_in_twenty_answers_that_a_person_can_read_is_left_unread() -> None:
    unread = [expected for _, _, expected in ROWS if expected[0] == "?" and len(expected) > 1]
    read = [expected for _, _, expected in ROWS if expected[0] not in "?!#"]
    assert len(ROWS) >= 200
    assert 0 < len(unread) <= 0.05 * (len(read) + len(unread))


def test_two_labels_are_never_one_answer() -> None:
    links = [
        "",
        " ",
        ", ",
        "/",
        "\n",
        " or ",
        " and ",
        " - ",
        ": ",
        "、",
        "或",
        "と",
        " (",
        "] [",
        " = ",
    ]
    for name in ("gender", "guns", "poles", "harm", "news", "war"):
        spellings = BOOKS[name].spellings
        for first, label in spellings.items():
            for second, other in spellings.items():
                if label == other:
                    continue
                for link in links:
                    for answer in (first + link + second, f"[{first}{link}{second}]"):
                        assert READERS[name].read(answer).labels in ((), (spellings.get(answer),)), (
                            answer
                        )


@pytest.mark.parametrize(
    "around",
    ["not {}", "isn't {}", "not a {} comment", "never {}", "hardly {}", "un{}", "non{}", "anti{}", "{}?",
     "不{}", "不是{}", "并非{}", "不太{}", "非{}", "没有{}", "{}ではない", "{}ではありません",
     "{}じゃない", "{}とは言えない",
     "pas {}", "ce n'est pas {}", "ni {}", "nicht {}", "no es {}", "Label: not {}", "标签：不{}",
     "ラベル：非{}",
     "The comment is not {}.", "这条评论不是{}的。", "このコメントは{}ではない。",
     "Ce commentaire n'est pas {}.",
     "maybe {}", "less {} than", "可能{}", "{}かも", "peut-être {}", "It could be {}.", "If {}"],
)  # fmt: skip
def test_what_is_denied_or_doubted_is_no_answer(around: str) -> None:
    for name in ("gender", "guns", "poles", "harm", "news", "war"):
        codes = {label.code for label in BOOKS[name].labels}
        for spelling in BOOKS[name].spellings:
            answer = around.format(spelling)
            if spelling not in codes and answer not in BOOKS[name].spellings:
                # "nontoxic" and "non-polarized" are labels themselves
                expected = BOOKS[name].spellings.get(answer.replace("non", "non-"))
                found = READERS[name].read(answer)
                assert found.outcome != "ok" or found.labels == (expected,), answer


def test_what_the_codebook_calls_a_code_is_one() -> None:
    letters = Reader(
        book("letters", [("calm", "Calm", "A"), ("angry", "Angry", "②", "two")]), reasoning=False
    )
    assert [told(letters.read(answer)) for answer in ("[A]", "a", "②", "two", "2", "A - Calm", "B")] == [
        "calm", "calm", "angry", "angry", "#", "calm", "?",
    ]  # fmt: skip


def test_a_spelling_that_our_folding_makes_ambiguous_is_not_read() -> None:
    alike = Reader(book("alike", [("one", "pro-war", None), ("two", "pro war", None)]), reasoning=False)
    assert [told(alike.read(answer)) for answer in ("pro-war", "pro war", "one")] == ["?", "?", "one"]


def test_zeros_and_ones_for_all_labels_are_no_codes() -> None:
    pair = Reader(book("pair", [("a", "Fear", 0), ("b", "Joy", 1)], many=True), reasoning=False)
    assert [told(pair.read(answer)) for answer in ("[0, 1]", "[1]", "Fear, Joy")] == ["?", "b", "a+b"]


def test_a_bare_list_of_all_labels_may_be_the_prompts_own_and_is_not_read() -> None:
    reader = READERS["toxicity"]
    names = [label.name for label in BOOKS["toxicity"].labels]
    assert told(reader.read(", ".join(names))) == "?"
    assert reader.read(json.dumps(names)).labels == BOOKS["toxicity"].space.labels
    assert len(reader.read(", ".join(names[:-1])).labels) == 6


def test_where_each_label_is_asked_for_a_label_alone_is_no_answer() -> None:
    reader = Reader(BOOKS["toxicity"], reasoning=False, each=True)
    for answer in ("obscene", "obscene, violent", '["obscene"]'):
        assert told(reader.read(answer)) == "?"
    assert reader.read("none").outcome == "ok"


def test_a_list_that_was_cut_off_is_no_answer() -> None:
    reader = READERS["toxicity"]
    assert told(reader.read("obscene, violent")) == "obscene+violent"
    assert told(reader.read_cut("obscene, violent")) == "?"
    assert told(reader.read_cut('["obscene", "violent"]')) == "obscene+violent"


def test_an_answer_that_is_only_shown_as_a_form_is_no_answer() -> None:
    reader = Reader(BOOKS["gender"], reasoning=True)
    assert told(reader.read("The format is:\nLabel: [1]")) == "?"
    assert told(reader.read("The writer complains.\nLabel: [1]")) != "?"
    assert told(reader.read_cut("The writer complains.\nLabel: [1]")) == "?"


def test_what_was_cut_off_is_not_read_where_it_may_begin_another_label() -> None:
    tens = Reader(
        book("tens", [("one", "Support", 1), ("two", "Support Gun", 2), ("ten", "Other", 10)]),
        reasoning=False,
    )
    for answer, whole, cut in (("1", "one", "?"), ("support", "one", "?"), ("2", "two", "two")):
        assert (told(tens.read(answer)), told(tens.read_cut(answer))) == (whole, cut)


def test_the_labels_of_an_answer_are_in_the_order_of_the_codebook() -> None:
    assert READERS["toxicity"].read("others, violent, obscene").labels == (
        "obscene",
        "violent",
        "others",
    )


FRAGMENTS = st.sampled_from(
    "{ } [ ] ( ) < > \" ' ` * _ # : ： , 、 ； / \n \\ $ - . 。 ! ? 0 1 2 9 -1 1.5 ² ① １ NaN null true "
    "yes no はい いいえ 是 否 oui non none なし <think> </think> <label> </label> \\boxed{ ```json ``` "
    "Label: 答案： ラベル： Réponse is not 不 ではない です 的 and or positive Mild 积极 toxic nontoxic "
    "有害 obscene Polarized </s> <|im_end|> [/INST] sorry I can't assist 无法 \ud800 \u200b \u0301 "
    "\\u00e9 \\ud800".split(" ")
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(), st.lists(FRAGMENTS, max_size=14).map("".join), st.lists(FRAGMENTS).map(" ".join)
    )
)
def test_no_answer_raises_and_a_reading_is_sound(answer: str) -> None:
    for reader, name in ((reader, name.partition(",")[0]) for name, reader in READERS.items()):
        reading = reader.read(answer)
        assert reading.outcome in ("ok", "refused", "unparsable", "out_of_schema")
        ids = [label.id for label in BOOKS[name].labels]
        assert list(reading.labels) == [one for one in ids if one in reading.labels]
        if reading.outcome != "ok":
            assert reading.labels == ()
        elif not BOOKS[name].many:
            assert len(reading.labels) == 1
        assert reader.read(answer) == reading


@pytest.mark.parametrize(
    "piece",
    ["[", "{", "(", '"', "'", "\\", "*", "1", "1*", "1, ", "1\n", " ", "- ", ". ", "。", "<think>",
     "</think>",
     "</s>", "label: ", "the label is ", "so ", "based on the ", "a: [", '{"a":', "\\boxed{",
     "obscene: yes\n",
     "\n#", "\nreason: ", "I cannot ", "sorry ", "的", "最终的", "不能", "Mild ", "x"],
)  # fmt: skip
def test_an_endless_answer_comes_back_and_is_no_answer(piece: str) -> None:
    # 100,000 characters of it: what isn't linear in them would take minutes.
    for name in ("gender", "gender, after a thought", "toxicity, after a thought"):
        assert READERS[name].read(piece * (100_000 // len(piece))).outcome != "ok"
        READERS[name].read("Label: " + piece * 20_000 + "1")
