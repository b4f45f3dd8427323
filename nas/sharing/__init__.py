"""What machines without a common file system share by a store (see `nas.store`), one thing a file.

searches/NAME/journal/NNNNNNNN.jsonl       the journal, in pieces
searches/NAME/driver.json                  who runs the search, as long as it does
searches/NAME/trials/TRIAL/NNNNNNNN.tar    the newest checkpoint of a trial
searches/NAME/files/                       what the search has found, at its end
corpora/SHA256/                            a prepared corpus
noise/                                     how far seeds differ, by configuration
"""
