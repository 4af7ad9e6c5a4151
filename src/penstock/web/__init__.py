"""What every page in the browser shares: safe answers, forms, cookies, and the files that come along."""
