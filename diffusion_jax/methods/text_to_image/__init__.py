"""Systems that draw pictures of texts, at the sizes of their papers, on captioned pictures of one's own."""
