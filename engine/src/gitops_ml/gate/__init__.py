"""May this model take the champion's place?"""
