package output

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// spdx is the type of predicates that list files in SPDX's form.
const spdx = "https://spdx.dev/Document"

// locate adds to a list of an image's files of which layer each is, as BuildKit does:
// in a comment, where the scanner has written none. What is no such list stays as it is.
func locate(ctx context.Context, m Made, text []byte, layers []digest.Digest) ([]byte, error) {
	var doc map[string]any
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	if in.Decode(&doc) != nil || m.Result == nil {
		return text, nil
	}
	files, _ := doc["files"].([]any)
	where, err := m.Result.Locator(ctx)
	if err != nil {
		return nil, err
	}
	defer where.Close()
	for _, f := range files {
		file, _ := f.(map[string]any)
		name, named := file["fileName"].(string)
		if comment, _ := file["comment"].(string); !named || comment != "" {
			continue
		}
		if n, ok := where.Find(name); ok && n < len(layers) {
			file["comment"] = "layerID: " + layers[n].String()
		}
	}
	made, _ := doc["creationInfo"].(map[string]any)
	if made == nil {
		made = map[string]any{}
		doc["creationInfo"] = made
	}
	creators, _ := made["creators"].([]any)
	made["creators"] = append(creators, "Tool: tare")
	return json.Marshal(doc)
}
