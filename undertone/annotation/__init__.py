"""What annotators, people or models, are asked and say: prompts, answers, agreement, fusion."""
