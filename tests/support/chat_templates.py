"""Chat templates in the manners that models' own have: each feature that renderers disagree about is in one of them."""

from __future__ import annotations

#: Rendered alike by Jinja and onnxruntime-genai, as they stand.
ALIKE = {
    "one line": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "a default system turn": "{%- if messages[0]['role'] != 'system' %}\n    {{- '<sys>Be kind.</sys>' }}\n"
    "{%- endif %}\n"
    "{%- for m in messages %}\n    {{- '<' + m.role + '>' + m.content + eos_token }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<assistant>' }}\n{%- endif %}\n",
    "content trimmed, parts joined": "{{ bos_token }}{% for m in messages %}"
    "{% set part = '[' ~ m['role'] ~ ']\n' ~ m['content'] | trim ~ '</s>' %}{{ part }}{% endfor %}"
    "{{ '[assistant]\n' if add_generation_prompt else '' }}",
    "roles have to alternate": "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
    "a namespace": "{% set ns = namespace(system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.system = m.content %}{% endif %}{% endfor %}{{ ns.system }}"
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}{% endif %}"
    "{% endfor %}",
    "as JSON": "{% for m in messages %}{{ m.content | tojson }}\n{% endfor %}",
    "skipped turns": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}|"
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "the day": "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "marked answers": "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "no tools": "{% if tools is not none and tools %}tools{% endif %}{% if not documents %}.{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}",
}
#: A tag is looked for within a text, as Qwen3's and DeepSeek-R1's templates do with an answer that was thought over.
SEARCHED = {
    "a thought is left out": "{%- for m in messages %}{%- set content = m.content %}"
    "{%- if m.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<' + m.role + '>' + content + eos_token }}{%- endfor %}",
    "only where there is none": "{% for m in messages %}{% if \"</think>\" not in m['content'] %}[{{ m.role }}]"
    "{{ m.content }}{% else %}[thought]{% endif %}{% endfor %}",
    "within a line for each block": "{% for m in messages %}\n{% if '</think>' in m.content %}\n"
    "{{ m.content.split('</think>')[1] }}\n{% else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}",
}
#: Rendered alike only after Jinja's trimming of blocks was done for onnxruntime-genai.
TRIMMED = {
    "a line for each block": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% else %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "indented blocks": "{# ours #}\n{% for m in messages %}\n    {% if m.content %}\n\n"
    "  {{ m.role }}: {{ m.content }}\n"
    "    {% endif %}\n{% endfor %}\n\n",
}
#: onnxruntime-genai fails at every chat, or at some.
UNKNOWN = {
    "capitalized": "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}",
    "replaced in system turns": "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content.replace('a', 'b') }}{% else %}{{ m.content }}{% endif %}{% endfor %}",
}
