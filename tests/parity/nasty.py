"""Strings that were picked by hand, because each of them is easy to get wrong."""

NASTY = (
    # Nothing, and texts that become nothing.
    "", " ", "\n", "\t \r\n", "\0", "\x01\x02", "\ufeff", "\x7f", "\x1b[0m", "&nbsp;", "&#32;", "&#1;", "&#xFFFE;", "\u3000", "\ufffc", "\u206a",
    "\x0b", "\x0c", "\u200b", "\u2060", "\xad", "\ufe0f", "\u200d",
    # Lone marks.
    "\u0301", " \u0301", "\u0301a", "\u0338", "<\u0338", "&lt;\u0338", "\u3099", "か\u3099", "ｶﾞ", "ﾟ", "\u20dd", "\u0345", "α\u0345",
    # References, with and without semicolon, nested, in capitals, by number.
    "&", "&&", "&;", "&#;", "&#x;", "&#xg;", "&amp", "&amp;", "&AMP;", "&Amp;", "&amp;amp;", "&amp;amp;amp;amp;", "&ampamp;", "&amp amp;", "&amp;lt;",
    "&lt;b&gt;", "&lt", "&ltb", "&gt", "&copy", "&copy2026", "&COPY;", "&notit;", "&notin;", "this&not that", "AT&T", "R&D", "Q&A", "rock&roll", "&para=1",
    "?a=1&copy=2&reg=3&lang=4", "&eacute;", "&EACUTE;", "&eACUTE;", "P&EACUTE;REZ", "&SZLIG;", "&IJLIG;", "&NAPOS;", "&fflig;", "&FFLIG;", "&rsquo;s", "it&#39;s",
    "it&#x27;s", "it&apos;s", "it&APOS;s", "&quot;a&quot;", "&#38;", "&#38;#38;", "&#38;amp;", "&am&#112;;", "&amp&#59;", "&#59;", "&semi;", "&amp&semi;", "&SEMI;", "&#x26;lt;", "&num;38;",
    "&#0;", "&#9;", "&#10;", "&#13;", "&#27;[31m", "&#128;", "&#129;", "&#133;", "&#146;", "&#150;", "&#160;", "&#xD800;", "&#x110000;", "&#99999999999999;", "&#xFFFFFFFFFF;",
    "&#233", "&#233a", "&#xe9g", "&#xE9;", "&#XE9;", "&#x37e;", "&amp&#x37e;", "&#xff1b;", "&amp&#xff1b;", "&#xFF06;amp;", "&#x212A;", "&NotEqualTilde;", "&fjlig;",
    "&CounterClockwiseContourIntegral;", "&ThisIsNoEntityThatAnybodyKnows;", "&1234567890123456789012345;", "&Jscr;ohn", "&zwj;", "&zwnj;", "&shy;", "&InvisibleTimes;",
    # A text that looks like HTML keeps its references in ftfy, and loses two levels afterwards.
    "<b>&amp;</b>", "<b>&amp;amp;</b>", "<b>&amp;amp;amp;</b>", "< &amp;amp;amp;", "&amp;amp;amp;\n<b>\n&amp;amp;amp;", "a < b &eacute", "<p>e&#769;</p>", "<i>&rsquo;s</i>", "< &#xff21;", "< &EACUTE;",
    "&lt;script&gt;alert(1)&lt;/script&gt;", "<!-- &#8217; -->", "＜b＞ &amp;amp;amp;", "\u226e &amp;",
    # Quotes and the endings behind an apostrophe.
    "it’s", "IT’S", "‘tis", "“a”", "„a“", "«a»", "‚a‛", "ʼn", "ŉ", "don't", "DON'T", "we'll've", "'s", "''s", "'S", "'re're", "'m'll'd", "rock'n'roll", "o'clock", "'", "''''", "`s", "´s", "′s", "＇s", "'ſ", "a'ſ b", "ſ", "ſt", "ﬅ",
    # Lower case.
    "ΟΔΟΣ", "ΟΔΟΣ.", "Σ", "ΣΣ", "ΑΣ΄", "Α.Σ.", "ΑΣ\u0301", "ΑΣ\xadΑ", "ΑΣ'Α", "ΑΣ’Α", "1Σ", "ΟΔΟΣ&nbsp;Α", "İ", "İSTANBUL", "I\u0307", "ẞ", "STRASSE", "ǅ", "Ǆ", "ᾳ", "ᾼ", "\u1fbc\u0301", "Ω", "Ω", "K", "Å", "Å", "Ა", "Ꭰ", "ꭰ", "𐐀", "𞤀", "Ⅷ", "Ⓐ", "𝐀", "ℋ",
    # Widths, ligatures, line breaks, control characters, escapes.
    "ＬＯＵＤ　ＮＯＩＳＥＳ", "＆ａｍｐ；", "＆＃３８；", "ﬁ", "ﬃ", "ﬆ", "Ĳ", "ĳ", "ǲ", "ﷺ", "㎏", "½", "２０２６", "￦", "￣", "ﾠ", "\uffe8", "a\x00b", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b", "a\rb", "a\r\nb", "a\x80b", "a\x81b", "a\x92s",
    "\x1b[31mred\x1b[0m", "\x1b[1;31mred", "\x1b[red", "\x1b[31", "\x1b", "\x1b]0;a", "\x1b[\x1b[31ma", "a\x1b[;;;mb", "&am\x1b[0mp;", "&am\x00p;", "\ufeffa", "a\ufeffb", "\ufff9a\ufffab\ufffb",
    # Normal forms.
    "é", "e\u0301", "e\u0323\u0302", "e\u0302\u0323", "\u1100\u1161\u11a8", "각", "가\u11a8", "\u0958", "\u0344", "\u1fef", "\u2126", "\u2329", "\uf900", "豈", "\u0f77", "\u1e9b\u0323",
    # Special tokens of CLIP and of OpenCLIP.
    "<|endoftext|>", "<|startoftext|>", "a <|endoftext|> b", "<|EndOfText|>", "<|ENDOFTEXT|>", "a<|endoftext|>b", "!!<|endoftext|>!!", "<|endoftext|><|endoftext|>", "<|endoftext|", "|endoftext|", "&lt;|endoftext|&gt;", "&amp;lt;|endoftext|>", "＜｜ｅｎｄｏｆｔｅｘｔ｜＞",
    "<start_of_text>", "<end_of_text>", "</w>", "a</w>", "endoftext", "startoftext", "<|endoftext|>'ſ",
    # Emoji and other characters beyond the first plane.
    "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "1️⃣", "🐈‍⬛", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "❤️", "☺︎", "𝒥ohn", "𠮷", "🀄", "\U0001d15e", "\U0010ffff", "\ue000", "\uffff",
    # Long words, long texts, many numbers.
    "x" * 300, "ab" * 200, "é" * 120, "字" * 100, "9" * 100, "! " * 90, "a " * 74, "a " * 75, "a " * 76, "a " * 77, "supercalifragilisticexpialidocious" * 8, "\u0301" * 90, "&amp;" * 90, "&" + "amp;" * 90, "&semi" * 60 + ";", "<" + "&amp;" * 40,
    "👍" * 60, "\x1b[0m" * 60 + "a", " " * 400 + "a", "0123456789" * 9,
    # Mojibake, and texts that look like it.
    "cafÃ©", "â€™s", "Ã ", "Ã la mode", "Â£5", "ï¬\x81", "schÃ¶n", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "ðŸ˜€", "Ã", "Ã©tÃ©", "L&AMP;AMP;ATILDE;&AMP;AMP;SUP3;PEZ", "voilÃ le travail", "Æ’", "ÅÄÖ", "l’humanité", "–", "Â", "\xe9\x80", "вЂ™", "├⌐",
    # Plain.
    "a photo of a cat", "A Photo, of: a CAT!", "hello   world", "Ünïcödé", "3.14159", "1,000,000", "C++", "C#", "#hashtag", "@mention", "foo_bar", "foo-bar", "e-mail@example.com", "http://example.com/?a=b&c=d", "100%", "$5", "5€", "№5", "(a)[b]{c}", "\\n", "\\u00e9", "a/b", "a|b", "~", "日本語のテキスト", "中文字符", "한국어", "עברית", "العربية", "हिन्दी", "ไทย", "ქართული", "ᏣᎳᎩ", "አማርኛ",
)
