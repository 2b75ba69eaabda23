// A server that says one thing.
package main

import (
	"flag"
	"fmt"
	"net/http"

	"rsc.io/quote"
)

func main() {
	listen := flag.String("listen", ":80", "where to listen")
	flag.Parse()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, quote.Go()) })
	fmt.Println(http.ListenAndServe(*listen, nil))
}
