"""The fixed phrases that may stand around a model's answer, and those by which it declines to answer.

In English, Chinese, Japanese and French, a little German and Spanish; all on text that `answers` has
folded. What isn't here makes an answer unparsable, never wrong.
"""

import re

# What may stand around a value, on folded text. No phrase holds a negation, a doubt or a comparison.
_TEXT = (
    "(?:(?:given|provided|user|above|following|news) )?"
    "(?:comment|text|sentence|tweet|post|message|statement|news|article|headline|review|input|sample)s?"
)
_TEXT_ZH = (
    "(?:这|該|该|此|本)?(?:条|篇|则|个|段|句)?(?:用户)?(?:新闻|评论|文本|句子|推文|微博|留言|内容|文章)"
)
_TEXT_JA = "(?:この|その|本|当該)?(?:コメント|テキスト|文章|文|投稿|発言|ツイート|ニュース)"
_TEXT_FR = "(?:commentaire|texte|message|avis)"
_LEAD = (
    r"(?:(?:(?:so|therefore|thus|hence|overall|in conclusion|conclusion|to conclude|in summary|finally|"
    r"sure|certainly|of course|okay|ok|here is|here's|assistant|donc|ainsi|par conséquent|en conclusion|"
    r"bien sûr|voici|also|folglich|daher|hier ist|por lo tanto|en conclusión|aquí está)\b[,!.:]?\s*|"
    r"based on(?: (?:the|this|these|your|and|given|provided|above|comment|text|definitions?|content|"
    r"information|categories|labels?|criteria|sentence|article|news|guidelines|instructions)){1,6},?\s+|"
    r"(?:好的|当然|因此|所以|综上所述|综上|总之|最终|故|结论|はい|したがって|従って|よって|以上より|以上から|"
    r"結論として|結論)[,，、。!:]?\s*|"
    r"(?:根据|依据|基于)(?:以上|上述|您?提供的|这条|这篇|该|给定的|的|定义|分析|内容|标准|评论|新闻|文本|和)"
    r"{1,6}[,，:]\s*)){0,3}"
)
# What an answer may be called. Of the `loose` ones only a colon makes one: "the result is positive" may
# be what the comment tells.
_FIRM = "|".join(
    (
        rf"(?:(?:the|my|your|its) )?(?:(?:{_TEXT})(?:'s)? )?(?:(?:final|user|correct|predicted|best|"
        r"most appropriate|appropriate|right|assigned|overall|chosen|selected|sentiment|toxicity|stance|"
        r"class|category) ){0,3}(?:labels?|answers?|category|categories|class|classes|classification|"
        r"sentiment|stance|polarity|codes?)(?: (?:id|code|name|number|result))?"
        rf"(?: (?:of|for) (?:(?:the|this|that|your) )?(?:{_TEXT}))?",
        rf"(?:{_TEXT_ZH}(?:所表达|表达)?的?)?(?:(?:最终|正确|情感|情绪|分类|用户|预测|所属)的?){{0,3}}"
        r"(?:答案|标签|標籤|类别|類別|分类|分類|情感|情绪|倾向|立场|态度|极性|标注)(?:编号|代码|名称|结果)?",
        rf"(?:{_TEXT_JA}(?:の|に対する))?(?:(?:最終|最終的な|正解|正しい|分類|判定|有害性|感情|該当する)の?)"
        r"{0,3}(?:ラベル|回答|答え|解答|分類|カテゴリー?|判定|感情)(?:結果|番号)?",
        r"(?:la |le |les |l'|ma |mon |votre )?(?:(?:bonne|meilleure) )?(?:réponse|reponse|étiquette|"
        r"etiquette|label|catégorie|categorie|classe|classification|sentiment)s?"
        r"(?: (?:finale?|correcte?|attribuée?|retenue?|prédite?|choisie?|correspondante?)){0,2}"
        rf"(?: (?:de|du|pour|à)(?: (?:ce|le|cet))? ?{_TEXT_FR})?",
        r"(?:(?:die|das|meine) )?(?:(?:endgültige|richtige|korrekte) )?(?:antwort|kategorie|klasse|"
        r"etikett|label|klassifikation|klassifizierung|stimmung)",
        r"(?:(?:la|el|mi) )?(?:respuesta|etiqueta|categoría|categoria|clase|clasificación|clasificacion|"
        r"sentimiento)(?: (?:final|correcta))?",
    )
)
_LOOSE = (
    r"(?:final |predicted )?(?:result|prediction|output|response|emotion)|(?:预测|输出|判断|最终)?"
    r"(?:结果|結果)|输出|回答|判断|预测|编号|代码|数字|結果|出力|番号|コード|résultat|resultat|code|numéro|ergebnis|"
    r"resultado"
)
KEY = re.compile(f"{_FIRM}|{_LOOSE}")
_COLON = r"\s*(?:=>|->|→|:|=|\n)\s*|\s-\s"
_IS = r"\s+(?:is|are|est|ist|lautet|es)\b|\s*(?:应为|应是|是|为|為|属于|屬於|は)"
_QUOTE, _UNQUOTE = r"['\"\[【]?", r"['\"\]】]?"
KEYED = re.compile(
    rf"{_LEAD}{_QUOTE}(?:(?:{_FIRM}){_UNQUOTE}(?:(?:{_IS})?(?:{_COLON})|(?P<is>{_IS})\s*|"
    rf"\s*(?=[0-9\[(【]))|(?:{_LOOSE}){_UNQUOTE}(?:{_COLON}))"  # "Label 2" needs no link
)
EXPLICIT = re.compile(
    rf"{_LEAD}(?:{_QUOTE}(?:{_FIRM}|{_LOOSE}){_UNQUOTE}(?:{_IS})?(?:{_COLON})|"
    r"(?:the |my )?(?:(?:final|correct|best|most appropriate) )?(?:label|answer|category|class) is\b|"
    r"(?:最终|正确)?(?:答案|标签|类别)[是为]|(?:最終的?な?)?(?:ラベル|回答|答え|カテゴリー?)は|"
    r"(?:la |l')(?:bonne )?(?:réponse|étiquette|catégorie)(?: finale)? est\b|"
    r"\$?\\boxed\{|<(?:label|answer|output)>)"
)
POLITE = re.compile(
    r"(?:sure|certainly|of course|okay|here is|here's|assistant|bien sûr|voici|好的|当然|はい|claro)"
    r"(?:\s*[,!.:、。]\s*|\n)"
)
CLASSED = re.compile(
    rf"{_LEAD}(?:(?:(?:this|the|that|your)(?: {_TEXT})?|it) (?:(?:is|should be|must be) (?:best )?"
    r"(?:classified|labell?ed|categori[sz]ed|tagged) (?:as|under)|falls (?:under|into)|belongs to)"
    r"(?: the)?(?: (?:label|class|category)(?: of)?)?|"
    rf"i (?:would |will )?(?:classify|label|categori[sz]e|tag) (?:this|the|it)(?: {_TEXT})? as|"
    rf"{_TEXT_ZH}(?:被|应|应被)?(?:归类|分类|标记|划分|标注)(?:为|到)|"
    rf"(?:ce|le|cet|l') ?{_TEXT_FR} est (?:classé|étiqueté|catégorisé)(?: comme| dans la catégorie)?)"
    r"(?:\s*:\s*|\s+|(?<=[为到])|\s*(?=[\[(\"]))"
)
STATED = re.compile(
    rf"{_LEAD}(?:(?:(?:this|the|that|your)(?: {_TEXT})?|it)(?:'s| is| expresses| shows| conveys)"
    r"(?: (?:a|an))?(?:\s*:\s*|\s+)|"
    rf"{_TEXT_ZH}的?(?:是|为|属于|表达了|表达的是)\s*|{_TEXT_JA}は\s*|"
    rf"(?:ce|le|cet|l') ?{_TEXT_FR} (?:est|exprime|relève de)(?: (?:un|une|la|le))?\s+|"
    r"(?:dieser|der) (?:kommentar|text) ist\s+|(?:este|el) (?:comentario|texto) es\s+)"
)
VERB_AFTER = re.compile(
    r"\s*(?:です|だ|である|となります|になります|[にと](?:分類|判定|判断)されます|に(?:該当|分類|属)します)\Z"
)
NOUN_AFTER = re.compile(
    r"(?: (?:sentiment|comment|text|label|category|class|tone|stance|news|article|view|attitude)"
    r"|\s*的(?:情绪|情感|评论|新闻|态度|立场|内容)?|\s*(?:类别?|情绪|情感|标签)|な(?:コメント|文章|投稿|感情))\Z"
)
SENTENCE_END = re.compile(r"\n|[.!?] (?=\S)|[。?!]")
BECAUSE = re.compile(
    r"\n(?:reasons?|reasoning|explanation|rationale|justification|理由|原因|解释|解釋|说明|分析|説明|根拠|"
    r"raison|explication|begründung|erklärung|razón|explicación) ?(?::|\n)"
)
CONFIDENCE = re.compile(
    r"\n(?:confidence(?: score| level)?|置信度|確信度|信頼度|confiance) ?[:=] ?"
    r"(?:[0-9.]{1,6} ?%?|high|medium|low|高|中|低)\Z"
)
TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|however|but|correction|mistake|sorry|instead|second thought|not|n't|unsure|"
    r"unclear|alternatively|could|might|perhaps|maybe|mais|cependant|plutôt|en fait|peut être|pas|aber|"
    r"doch|nicht|pero|sino)\b|n't\b|但|不|其实|更正|抱歉|可能|或|しかし|ただし|訂正|かも|一方|ない|ません"
)

# Refusals. What declines the task leaves no answer to be trusted; what is merely unable to tell may be
# a step of a thought that ends in an answer.
_DO = (
    r"(?:assist|help(?! but| feel| notic| wonder)|comply|fulfill?|engage|participate|provide|support|"
    r"process|continue|generate|create|respond|answer|discuss|produce|complete|do (?:that|this)|offer|"
    r"(?:make|give|express|have) (?:\w+ )?(?:opinions?|judge?ments?|views?))"
)
_TELL = (
    r"(?:accurately |confidently |reliably |definitively |really |be )*(?:determine|classify|label|"
    r"categori[sz]e|judge|evaluate|analy[sz]e|assess|decide|assign|identify|rate|say|tell|sure)"
)
_CANNOT = (
    r"(?:can't|cannot|can not|won't|will not|couldn't|could not|(?:am |'m )?(?:unable|not able|"
    r"not (?:allowed|permitted|programmed|designed|comfortable)) to|decline to|refuse to)"
)
# Each begins with a letter or sign, which the search can skip to: thoughts are long.
_I = (
    r"(?:[.!?\n\"] ?|i(?<![a-z]i) ?|we(?<![a-z]we) ?)(?:i |we )?(?:must |have to |do )?"
    r"(?:respectfully )?"
)
DECLINED = re.compile(
    "|".join(
        (
            rf"{_I}{_CANNOT} {_DO}",
            rf"(?:sorry|apologi[sz]e|apologies|unfortunately)\b[^.\n]{{0,60}}{_CANNOT}",
            r"\n(?<=\A\n)(?:i'm |i am )?(?:very |so |really )?sorry\b",
            r"as(?<![a-z]as) an? (?:ai\b|artificial intelligence|(?:large )?language model|llm\b)",
            r"i(?<![a-z]i)(?:'m| am) (?:just |only )?an? (?:ai\b|(?:large )?language model)",
            r"i(?<![a-z]i) must (?:respectfully )?decline\b",
            r"(?:my|openai's|our) (?:\w+ )?(?:guidelines|programming|polic(?:y|ies))\b",
            r"content (?:management )?policy\b",
            # Chinese
            r"[作身][为為](?:一个|一個|一名|一款|一种|个)?(?:ai|人工智[能慧]|大?型?语言模型|大?型?語言模型|大模型|智能助手)",
            r"(?:抱歉|对不起|對不起|遗憾|不好意思)[^。\n]{0,30}(?:无法|無法|不能|没法|不便|没有办法|不可以|拒绝)",
            r"我(?:暂时|目前)?(?:无法|無法|不能|没法|不便|不会|没有办法|拒绝)(?:对|为|给|就|满足|提供|回答|回應|回应|"
            r"协助|協助|帮助|幫助|完成|处理|处理|继续|参与|讨论|执行|生成|输出|进行|评价|支持)",
            r"(?:无法|無法|不能)(?:提供|回答|满足|协助|完成|处理)(?:您|你|该|此|这|相关|上述|任何)",
            r"换个话题|换一个话题|没有?学习?会?如何回答|聊点别的",
            # Japanese
            r"(?:申し訳|すみません|ごめんなさい|恐れ入ります|残念ながら)[^。\n]{0,60}"
            r"(?:ません|かねます|できない|控え|お断り)",
            r"(?:ai|人工知能|言語モデル|aiアシスタント)(?:である私|の私|として|なので|ですので|であるため|のため)",
            r"(?:お答え|回答|お手伝い|対応|お応え|提供|支援|協力|応じる)(?:する)?(?:こと)?[はがを]?"
            r"(?:でき(?:ません|かねます)|(?:いた|致)しかねます|出来ません|差し?控え|控え)",
            # French
            r"en tant qu(?:e |')(?:ia\b|intelligence artificielle|(?:un |grand )?modèle|assistant)",
            r"désolée?\b[^.\n]{0,60}\b(?:ne (?:peux|puis|suis|saurais)|impossible|pas en mesure)",
            r"je ne (?:peux|puis|saurais|suis|souhaite)(?: malheureusement)?(?: pas)?(?: en mesure de| "
            r"autorisée? à| capable de)? (?:vous |y |t')?(?:aider|répondre|traiter|fournir|satisfaire|"
            r"accéder|donner suite|participer|effectuer|réaliser|continuer|produire|générer|commenter)",
            r"je refuse de\b",
            # German, Spanish
            r"als (?:ein )?(?:ki\b|künstliche intelligenz|(?:großes )?sprachmodell)",
            r"tut mir (?:sehr )?leid[^.\n]{0,60}\b(?:kann|darf|möchte)\b",
            r"ich (?:kann|darf|werde)\b[^.\n]{0,60}\bnicht (?:helfen|beantworten|bearbeiten|erfüllen|"
            r"unterstützen|weiterhelfen|nachkommen)",
            r"como (?:ia\b|(?:un )?modelo de lenguaje|(?:una )?inteligencia artificial|asistente)",
            r"lo siento[^.\n]{0,60}\bno (?:puedo|me es posible)",
            r"no puedo (?:ayudar|asistir|responder|proporcionar|cumplir|procesar|continuar)",
        )
    )
)
UNABLE = re.compile(
    "|".join(
        (
            rf"{_I}{_CANNOT} {_TELL}\b",
            r"(?:not possible|impossible) to (?:determine|classify|label|categori[sz]e)",
            r"(?:无法|無法|不能|难以)(?:确定|判断|分类|归类|识别|判定|标注|评估|判斷|分類|確定)",
            r"(?:判断|分類|判定|特定|評価)(?:する)?(?:こと)?[はが]?(?:でき(?:ません|かねます|ない)|困難|難し)",
            r"je ne (?:peux|puis|saurais|suis)(?: malheureusement)?(?: pas)?(?: en mesure de| capable "
            r"de)? (?:déterminer|classer|classifier|étiqueter|juger|évaluer|analyser|catégoriser)",
            r"impossible de (?:déterminer|classer|classifier|catégoriser)",
            r"ich kann\b[^.\n]{0,60}\bnicht (?:klassifizieren|einordnen|bewerten|bestimmen|zuordnen)",
            r"no puedo (?:clasificar|determinar|etiquetar|evaluar)",
        )
    )
)
