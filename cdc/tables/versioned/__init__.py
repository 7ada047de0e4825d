"""Tables to which rows are only ever appended, each with its place in the log: of a key, the newest row counts.

Whatever is appended twice, or late, changes nothing, so that no transaction is needed; the checkpoint is written last.
In a history every row that was appended is a version, or says where one ended.
"""
