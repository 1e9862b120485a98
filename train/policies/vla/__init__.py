"""The policy ``vla``: a vision-language model of Hugging Face reads images and instruction, an action expert acts."""
