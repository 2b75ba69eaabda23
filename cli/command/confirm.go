package command

import (
	"bufio"
	"context"
	"fmt"
	"strings"
)

// Confirm asks the user, and is true for y or Y. The end of the input is no.
func Confirm(ctx context.Context, s *Session, question string) (bool, error) {
	if _, err := fmt.Fprintf(s.Out, "%s [y/N] ", question); err != nil {
		return false, err
	}
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(s.In).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case line := <-answer:
		return strings.EqualFold(line, "y"), nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
