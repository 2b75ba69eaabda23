package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
)

// listPart is how many elements of a list are encoded in one piece.
const listPart = 64

// writeList answers with the list, as writeJSON does. A long one is encoded by
// several processors and sent in one piece.
func writeList[T any](w http.ResponseWriter, list []T) error {
	if len(list) <= listPart {
		return writeJSON(w, http.StatusOK, list)
	}
	return writeText(w, slices.Concat([]byte("["), encodeList(list), []byte("]\n")))
}

// encodeList encodes the elements without the brackets around them.
func encodeList[T any](list []T) []byte {
	parts := make([][]byte, (len(list)+listPart-1)/listPart)
	workers := min(runtime.GOMAXPROCS(0), len(parts))
	var running sync.WaitGroup
	for first := range workers {
		running.Go(func() {
			for i := first; i < len(parts); i += workers {
				parts[i] = encodePart(list[i*listPart : min((i+1)*listPart, len(list))])
			}
		})
	}
	running.Wait()
	return bytes.Join(parts, []byte(","))
}

// writeText answers with JSON text, in one piece.
func writeText(w http.ResponseWriter, text []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	w.Write(text)
	return nil
}

// encodePart does so of some.
func encodePart[T any](list []T) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(list)
	return bytes.TrimSuffix(bytes.TrimPrefix(b.Bytes(), []byte("[")), []byte("]\n"))
}
