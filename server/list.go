package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"runtime"
)

// listPart is how many elements of a list are encoded in one piece.
const listPart = 64

// writeList answers with the list, as writeJSON does. A long one is encoded by
// several processors and sent as it comes, so that the client reads it meanwhile.
func writeList[T any](w http.ResponseWriter, list []T) error {
	if len(list) <= listPart {
		return writeJSON(w, http.StatusOK, list)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	var parts []chan []byte
	for range (len(list) + listPart - 1) / listPart {
		parts = append(parts, make(chan []byte, 1))
	}
	workers := min(runtime.GOMAXPROCS(0), len(parts))
	for first := range workers {
		go func() { // whose parts are all waited for below
			for i := first; i < len(parts); i += workers {
				parts[i] <- encodePart(list[i*listPart : min((i+1)*listPart, len(list))])
			}
		}()
	}
	open, broken := []byte("["), false
	for _, part := range parts {
		text := <-part
		if !broken {
			_, err := w.Write(append(open, text...))
			broken, open = err != nil, []byte(",") // of no use to anyone
		}
	}
	if !broken {
		w.Write([]byte("]\n"))
	}
	return nil
}

// encodePart encodes the elements without the brackets around them.
func encodePart[T any](list []T) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(list)
	return bytes.TrimSuffix(bytes.TrimPrefix(b.Bytes(), []byte("[")), []byte("]\n"))
}
